"""The plugins with detectors of other libraries, installed; each where its library is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


class Plugin(NamedTuple):
    """A folder under ``examples``, the block it brings and what its tests import."""

    folder: str
    block: str
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.block.partition("/")[0]


PLUGINS = [
    Plugin("plugin_onnx", "onnx/detect@v1", ("onnx", "onnxruntime", "cv2")),
    Plugin("plugin_ultralytics", "ultralytics/detect@v1", ("ultralytics",)),
    Plugin("plugin_rfdetr", "rfdetr/detect@v1", ("rfdetr",)),
]


@pytest.fixture(params=PLUGINS, ids=[plugin.name for plugin in PLUGINS])
def plugin(request):
    missing = [name for name in request.param.needs if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} are not installed")
    return request.param


@pytest.fixture
def python(plugin, tmp_path_factory):
    """Run Python where the plugin is installed, from a folder where nothing else is."""
    target, elsewhere = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("SAM2_BLOCKS_PLUGINS", None)
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )

    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    done = run("-m", "pip", "install", *offline, "--target", target, EXAMPLES / plugin.folder)
    assert done.returncode == 0, done.stderr
    return run


def test_the_installed_plugin_is_found_and_passes_its_own_tests(python, plugin):
    done = python("-m", "sam2_blocks", "plugins", "list", "--json")
    assert done.returncode == 0, done.stderr
    [record] = [record for record in json.loads(done.stdout) if record["name"] == plugin.name]
    assert (record["blocks"], record["error"]) == ([plugin.block], "")
    folder = EXAMPLES / plugin.folder
    config = ["-c", folder / "pyproject.toml", "--rootdir", folder, "-p", "no:cacheprovider"]
    done = python("-m", "pytest", "-q", *config, folder / "tests")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_a_plugin_has_what_a_new_one_has(plugin):
    """As ``sam2-blocks new block`` makes it, whether its library is installed or not."""
    folder = EXAMPLES / plugin.folder
    manifest = f"sam2_blocks_{plugin.name}/manifests/detect.yaml"
    for file in ("pyproject.toml", "README.md", "pipeline.yaml", manifest):
        assert (folder / file).is_file(), file
    assert sorted((folder / "tests").glob("test_*.py"))
