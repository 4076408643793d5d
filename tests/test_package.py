from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import sam2_blocks
from tests.conftest import ROOT


def run_python(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_brings_no_torch_no_host_and_is_quick():
    heavy = ["torch", "sam2", "supervision", "cv2", "fastapi", "ray", "typer", "hydra"]
    code = f"import sys, sam2_blocks; print([m for m in {heavy} if m in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_everything_public_can_be_imported():
    for name in sam2_blocks.__all__:
        assert getattr(sam2_blocks, name)


def test_what_is_listed_is_public_and_nothing_else():
    assert dir(sam2_blocks) == sorted(sam2_blocks.__all__)
    assert len(sam2_blocks.__all__) == len(set(sam2_blocks.__all__)) > 30
    with pytest.raises(AttributeError, match="No sam2_blocks attribute runner"):
        sam2_blocks.runner  # noqa: B018


def test_the_version_is_said_once(wheel):
    assert wheel.name.startswith(f"sam2_blocks-{sam2_blocks.__version__}-")
    assert sam2_blocks.__version__ not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_only_the_executor_and_hosts_import_torch():
    for path in (ROOT / "sam2_blocks").rglob("*.py"):
        if "executor" not in path.parts and "hosts" not in path.parts:
            lines = path.read_text(encoding="utf-8").splitlines()
            found = [line for line in lines if line.startswith(("import torch", "from torch"))]
            assert not found, path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    [path] = folder.glob("*.whl")
    return path


def test_the_wheel_carries_manifests_schemas_and_weights(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "manifests").glob("*.yaml"):
        assert f"sam2_blocks/manifests/{path.name}" in names
    assert "sam2_blocks/schemas/pipeline.schema.json" in names
    for suffix in ("json", "yaml", "safetensors"):
        assert f"sam2_blocks/executor/weights/nano.{suffix}" in names
    assert "sam2_blocks/__init__.pyi" in names  # read at run time: the public names
    assert "sam2_blocks/py.typed" in names
    page = ROOT / "sam2_blocks" / "hosts" / "http" / "page" / "static"
    for path in filter(Path.is_file, page.rglob("*")):
        assert path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "examples"))]


def test_an_installed_wheel_lists_its_blocks(wheel, tmp_path):
    """In an environment of its own: our package from the wheel, its dependencies from here."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(site),
            str(wheel),
        ],
        check=True,
        capture_output=True,
    )
    own = Path(sam2_blocks.__file__).parents[1]
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(dependencies))
    code = (
        "import sys; sys.argv = ['sam2-blocks', 'blocks', 'list', '--json']\n"
        f"sys.path = [p for p in sys.path if p not in ({str(own)!r}, '')]\n"
        f"import sam2_blocks; assert sam2_blocks.__file__.startswith({str(site)!r})\n"
        "from sam2_blocks.cli.app import main; main()"
    )
    result = subprocess.run(
        [str(python), "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "SAM2_BLOCKS_PLUGINS": ""},
    )
    assert result.returncode == 0, result.stderr
    assert '"sam2/segment@v1"' in result.stdout
