from __future__ import annotations

import json
import sys

import pytest

from sam2_blocks.cli import options
from sam2_blocks.runs import run as run_module
from tests.cli.conftest import COFFEE, QUICKSTART
from tests.conftest import PICTURES, ROOT


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", QUICKSTART, "-i", "none.jpg"), 2, "none.jpg: no such file, folder or match"),
        (("run", "none.yaml", "-i", COFFEE), 2, "none.yaml: cannot be read"),
        (("run", QUICKSTART, "-i", COFFEE, "-s", "modl=x"), 2, "Did you mean 'model'?"),
        (("run", QUICKSTART, "-i", COFFEE, "-s", "model"), 2, "wants name=value"),
        (("validate", "none.yaml"), 2, "none.yaml: cannot be read"),
        (("blocks", "show", "sam2/embd@v1"), 2, "Did you mean 'sam2/embed@v1'?"),
        (("models", "verify", "hiera_tny"), 3, "there is no model 'hiera_tny'"),
        (("schema", "pipelin"), 2, "no schema of 'pipelin'. Did you mean 'pipeline'?"),
        (("run", QUICKSTART), 2, "Missing option"),
    ],
)
def test_a_mistake_is_one_readable_block(call, arguments, code, message):
    got, _, err = call(*arguments)
    assert got == code
    assert message in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(call):
    from sam2_blocks.errors import Sam2BlocksError

    with pytest.raises(Sam2BlocksError, match="no such file, folder or match"):
        call("--debug", "run", QUICKSTART, "-i", "none.jpg")


def test_all_mistakes_of_a_pipeline_are_printed(call, tmp_path):
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    path = tmp_path / "p.yaml"
    path.write_text(text.replace("draw/masks@v1", "draw/mask@v1").replace("boxes.det", "boxs.det"))
    code, _, err = call("validate", path)
    assert code == 2
    assert err.count(f"{path}:") == 2


@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_missing_package_is_said_before_anything_runs(call, monkeypatch, tmp_path, command):
    monkeypatch.setitem(sys.modules, "transformers", None)
    more = ("-i", COFFEE, "-o", tmp_path / "out") if command == "run" else ()
    code, _, err = call(command, ROOT / "examples" / "detect.yaml", *more)
    assert code == 2
    assert "needs the package 'transformers'" in err
    assert "pip install 'sam2-blocks[transformers]'" in err
    assert not (tmp_path / "out").exists()


def test_blocks_plugins_and_models_are_listed(call):
    assert "sam2/segment@v1" in call("blocks", "list")[1]
    assert any(
        row["id"] == "sam2/embed@v1" for row in json.loads(call("blocks", "list", "--json")[1])
    )
    assert "exactly one of `image`, `embedding`" in call("blocks", "show", "sam2/segment@v1")[1]
    assert json.loads(call("plugins", "list", "--json")[1])[0]["name"] == "builtin"
    assert "sam2.1/hiera_tiny" in call("models", "list")[1]
    assert call("models", "verify", "nano")[1].endswith("is the published file\n")
    assert json.loads(call("schema", "manifest")[1])["title"] == "sam2_blocks manifest"
    assert call("validate", QUICKSTART)[1].endswith("is valid: boxes → segment → draw\n")


def test_an_unexpected_error_is_one_block_too(call, monkeypatch):
    monkeypatch.setattr(run_module, "run_pipeline", lambda *_, **__: 1 / 0)
    code, _, err = call("run", QUICKSTART, "-i", COFFEE)
    assert code == options.STOPPED
    assert "unexpected ZeroDivisionError" in err
    assert "Traceback" not in err


def test_a_folder_that_cannot_be_made_is_named_before_anything_runs(call, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = call("run", QUICKSTART, "-i", COFFEE, "-o", tmp_path / "file")
    assert code == options.WRONG_INPUT
    assert "cannot write to the folder" in err


def test_a_wrong_setting_is_one_error(call, tmp_path):
    points = ROOT / "examples" / "points.yaml"
    code, _, err = call("run", points, "-i", PICTURES, "-o", tmp_path, "-s", "prompts=abc")
    assert code == options.WRONG_INPUT
    assert err.count("wants a list of mappings") == 1
