"""The sam2 package is used without touching the application's Hydra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.weights import upstream
from sam2_blocks.executor.weights.upstream import build_network, sam2_folder

LOAD = "from sam2_blocks.executor import load; load('nano', device='cpu', seed=0)\n"
OWN_HYDRA = """
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
initialize_config_dir(FOLDER, version_base="1.3")
"""
CHECK = """
assert compose("app").answer == 42
assert GlobalHydra.instance().config_loader().get_search_path().get_path()[1].path == FOLDER
"""


@pytest.fixture
def application(tmp_path: Path):
    """Run a script beside a Hydra configuration of its own."""
    (tmp_path / "app.yaml").write_text("answer: 42\n")

    def run(script: str) -> None:
        script = f"FOLDER = {str(tmp_path)!r}\n{script}"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return run


def test_an_application_that_initialised_hydra_before(application):
    application(OWN_HYDRA + CHECK + LOAD + CHECK)


def test_an_application_that_initialises_hydra_after(application):
    application(LOAD + OWN_HYDRA + CHECK)


def test_hydra_is_not_even_imported(application):
    application(
        LOAD + "import sys; assert 'hydra' not in sys.modules and 'sam2' not in sys.modules"
    )


def test_the_official_code_works_after_ours(application):
    application(
        LOAD
        + "from sam2.build_sam import build_sam2\n"
        + "build_sam2('configs/sam2.1/sam2.1_hiera_t.yaml', device='cpu')"
    )


def test_the_official_code_works_before_ours(application):
    application("import sam2, sam2.build_sam\n" + LOAD + "import sam2.modeling.sam2_base")


def test_the_network_equals_the_official_one(tiny):
    import torch
    from sam2.build_sam import build_sam2

    torch.manual_seed(7)
    official = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu")
    ours = tiny.model.network
    assert str(ours) == str(official)
    assert ours.sam_mask_decoder.dynamic_multimask_via_stability
    state = ours.state_dict()
    assert all(torch.equal(state[name], value) for name, value in official.state_dict().items())


def test_without_sam2_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"'sam2' is not installed. Run: pip install 'sam2>=1.1'"):
        sam2_folder()


def test_another_package_of_the_same_name_is_named(tmp_path, monkeypatch):
    (tmp_path / "sam2").mkdir()
    (tmp_path / "sam2" / "__init__.py").write_text("")
    spec = upstream.importlib.util.spec_from_file_location(
        "sam2",
        tmp_path / "sam2" / "__init__.py",
        submodule_search_locations=[str(tmp_path / "sam2")],
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    monkeypatch.setattr(upstream, "packages_distributions", lambda: {"sam2": ["RF-SAM-2"]})
    with pytest.raises(ModelError, match=r"\(from RF-SAM-2\) cannot be used: it has no modeling"):
        sam2_folder()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {_target_: os.system, command: 'true'}", "must name a class below 'sam2.modeling"),
        ("model: {_target_: sam2.modeling.sam2_base.Nothing}", "no class 'sam2.modeling.sam2_base"),
        ("model: {_target_: sam2.modeling.sam2_base.SAM2Base}", "does not describe a SAM 2 model"),
        ("trainer: {}", "it has no mapping 'model'"),
        ("model: [", "cannot read the model configuration"),
    ],
)
def test_a_configuration_is_data(text, message, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(text)
    with pytest.raises(ModelError, match=message):
        build_network(path)
