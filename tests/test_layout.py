"""A module's tests are where a stranger looks: ``tests/<room>/test_<module>.py``."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT, pytest_cmdline_main

WHOLE, PART = pytest.Config.ArgsSource.TESTPATHS, pytest.Config.ArgsSource.ARGS
PACKAGE = ROOT / "sam2_blocks"
TESTS = ROOT / "tests"

# Modules that have no tests of their own, and why.
UNTESTED = {
    "__main__.py": "one call; tests/test_plugin_example.py runs it",
    "language/checking.py": "tests/language/test_pipeline.py, test_flow.py and test_composed.py",
    "language/fields.py": "part of manifests: tests/language/test_manifest.py",
    "language/wiring.py": "tests/language/test_flow.py: every wire of it is one of a pipeline",
    "language/written.py": "tests/language/test_pipeline.py",
    "executor/toolkit.py": "re-exports; tests/test_hooks_docs.py runs an executor made of them",
}
# Files of tests that no module answers to, and why.
ABOUT_MORE = {
    "blocks/test_one_truth.py": "masks through every block that reads them",
    "engine/test_runner_guards.py": "code of others that leaves the runner in any way",
    "executor/sam2/test_cache_of_executor.py": "an executor on every tier of its cache",
    "executor/sam2/test_parity.py": "the whole way against the official predictor",
    "executor/sam2/test_track_parity.py": "a session against the official video predictor",
    "executor/test_cuda.py": "what only CUDA can prove, of all modules",
    "executor/test_cuda_abilities.py": "tracks, services and detectors on a CUDA device",
    "hosts/comfyui/test_clips.py": "a clip through the nodes that follow objects",
    "hosts/http/test_fuzz.py": "no request makes the server fail",
    "hosts/http/page/test_browser.py": "the page in a real browser",
    "hosts/http/page/test_browser_access.py": "the page without a mouse, and for everybody",
    "hosts/http/page/test_browser_files.py": "what comes into the page and what leaves it",
    "hosts/http/page/test_browser_copies.py": "what is copied from the page runs elsewhere",
    "hosts/http/test_inference_sdk.py": "the real client of Roboflow Inference",
    "service/test_upstream.py": "what Roboflow's tests of its SAM 2 routes expect",
    "service/test_defects.py": "sixteen defects of the public service, absent here",
    "hosts/labelstudio/test_real.py": "a real Label Studio, where one is installed",
    "hosts/test_pages.py": "the pages of docs/hosts, with their hosts",
    "runs/test_s3.py": "a whole run from a bucket into a bucket",
    "test_benchmarks.py": "the folder benchmarks/",
    "test_dataset_kills.py": "runs that are killed, of benchmarks/dataset_kills.py",
    "test_detector_plugins.py": "examples/plugin_onnx and others with detectors, installed",
    "test_docs.py": "docs/ and mkdocs.yml",
    "test_docstrings.py": "the example of every public name",
    "test_examples.py": "the folder examples/",
    "hosts/roboflow/test_core_blocks.py": "the engine's own blocks after ours",
    "hosts/roboflow/test_upstream.py": "what Roboflow's tests of its SAM 2 block expect",
    "hosts/roboflow/test_pipelines.py": "a pipeline of ours as a block of the engine",
    "hosts/roboflow/test_inference_server.py": "the real server of Roboflow Inference",
    "hosts/roboflow/test_upstream_masks.py": "what Roboflow's tests of masks expect",
    "hosts/roboflow/test_upstream_remote.py": "Roboflow's blocks in remote mode before our server",
    "hosts/roboflow/test_upstream_video.py": "what Roboflow's tests of its video block expect",
    "hosts/http/test_upstream.py": "what Roboflow's tests of its server expect",
    "hosts/roboflow/test_video.py": "videos in the engine, and its own block of videos",
    "hosts/roboflow/test_workflows.py": "whole workflows in the engine",
    "test_roboflow_docs.py": "docs/coming-from/roboflow.md",
    "hosts/roboflow/test_threshold_family.py": "the second family inside Roboflow's engine",
    "test_hooks_docs.py": "docs/hooks.md and docs/executors.md",
    "test_layout.py": "this file",
    "test_package.py": "the package as it is imported, built and installed",
    "test_plain_install.py": "what pyproject.toml declares, and nothing else",
    "test_plugin_example.py": "examples/plugin, installed",
    "test_readers.py": "what we export, read by the libraries of others",
    "cli/test_run_unwritten.py": "what `run` says of results that cannot be written",
    "runs/test_histories.py": "random lives of an output folder",
    "test_readme.py": "README.md",
    "test_sockets.py": "the frozen sockets of every block",
    "test_threshold_family.py": "a second family of models, through the hooks alone",
    "test_train_nano.py": "examples/train_nano",
    "test_train_nano_video.py": "the training of its memory",
    "test_train_nano_painters.py": "the training of its memory as on a GPU",
}


def modules() -> dict[str, Path]:
    """Modules that do something, by their place in the package."""
    return {
        path.relative_to(PACKAGE).as_posix(): path
        for path in sorted(PACKAGE.rglob("*.py"))
        if _has_behaviour(path)
    }


def _has_behaviour(path: Path) -> bool:
    """Whether there is a function with a body in it; a package's lazy names are none."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    if path.name == "__init__.py":
        functions = [node for node in functions if node.name != "__getattr__"]
    return bool(functions)


def home_of_tests(module: str) -> str:
    """Where a module's tests are; those of a package are called like it."""
    path = Path(module)
    name = path.parent.name if path.name == "__init__.py" else path.stem
    return (path.parent / f"test_{name}.py").as_posix()


def test_every_module_has_tests_of_its_own():
    missing = [
        home
        for module in modules()
        if module not in UNTESTED and not (TESTS / (home := home_of_tests(module))).exists()
    ]
    assert not missing, f"write these, or say in UNTESTED why not: {missing}"


def test_every_file_of_tests_answers_to_a_module():
    homes = {
        home_of_tests(path.relative_to(PACKAGE).as_posix()) for path in PACKAGE.rglob("*.py")
    } | set(ABOUT_MORE)
    found = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
    assert not found - homes, "move these to their modules, or say in ABOUT_MORE what they are for"


@pytest.mark.parametrize(("listed", "folder"), [(UNTESTED, PACKAGE), (ABOUT_MORE, TESTS)])
def test_no_exception_is_out_of_date(listed, folder):
    gone = [name for name in listed if not (folder / name).exists()]
    assert not gone
    assert not [
        name for name in listed if folder is PACKAGE and (TESTS / home_of_tests(name)).exists()
    ]


# Rooms whose modules explain themselves: one a block, a command, a host, a form of inputs.
WITHOUT_A_MAP = {"blocks", "cli", "hosts", "runs/sources", "executor", "testing", "."}


def rooms():
    for init in sorted(PACKAGE.rglob("__init__.py")):
        room = init.parent.relative_to(PACKAGE).as_posix()
        modules = sorted({path.stem for path in init.parent.glob("*.py")} - {"__init__"})
        if room not in WITHOUT_A_MAP and len(modules) > 2:
            yield pytest.param(init, modules, id=room)


@pytest.mark.parametrize(("init", "modules"), list(rooms()))
def test_a_room_says_what_each_of_its_modules_is_for(init, modules):
    text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
    missing = [module for module in modules if f"`{module}`" not in text]
    assert not missing, f"say in the docstring of {init} what these are for"


@pytest.mark.parametrize(
    ("source", "more", "processes"),
    [
        (WHOLE, {}, "auto"),
        (PART, {}, None),  # a part of the suite
        (WHOLE, {"workerinput": {}}, None),  # one of the processes: it starts no others
    ],
)
def test_the_whole_suite_is_spread_once(monkeypatch, source, more, processes):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    options = SimpleNamespace(keyword="", markexpr="", numprocesses=None, usepdb=False)
    pytest_cmdline_main(SimpleNamespace(option=options, args_source=source, **more))
    assert options.numprocesses == processes
