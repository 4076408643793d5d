from __future__ import annotations

import json

import pytest

from sam2_blocks.cli import options
from tests.cli.conftest import QUICKSTART


def test_models_of_every_family_are_listed(call):
    rows = {row["model"]: row for row in json.loads(call("models", "list", "--json")[1])}
    assert rows["sam2.1/hiera_tiny"]["nbytes"] == 156008466
    assert rows["nano"]["family"] == "sam2"
    assert "sam2.1/hiera_tiny" in call("models", "list")[1]


def test_names_are_whole_on_a_narrow_screen(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = call("models", "list")[1]
    cells = [line.split("│")[1].strip() for line in shown.splitlines() if line.startswith("│")]
    assert "transformers:PekingU/rtdetr_v2_r18vd" in "".join(cells)


def test_what_ships_in_the_package_is_not_downloaded(call):
    code, out, _ = call("models", "download", "nano")
    assert code == 0
    assert "there is nothing to download" in out


def test_a_pipeline_says_which_models_it_needs(call):
    code, out, _ = call("models", "download", QUICKSTART)
    assert code == 0
    assert "nano" in out


@pytest.mark.parametrize("command", ["download", "verify"])
def test_a_model_that_is_not_known_gets_a_hint(call, command):
    code, _, err = call("models", command, "hiera_tny")
    assert code == options.STOPPED
    assert "there is no model 'hiera_tny'" in err
    assert "hiera_tiny" in err


def test_the_embedded_model_is_the_published_file(call):
    assert call("models", "verify", "nano")[1].endswith("is the published file\n")


def test_models_of_the_hub_are_listed_with_what_is_here(call, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--PekingU--rtdetr_v2_r18vd" / "snapshots" / "0").mkdir(parents=True)
    rows = {row["model"]: row for row in json.loads(call("models", "list", "--json")[1])}
    assert rows["transformers:PekingU/rtdetr_v2_r18vd"]["weights"] == "downloaded"
    assert rows["transformers:IDEA-Research/grounding-dino-tiny"]["weights"] == "to download"


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("facebook/sam2.1-hiera-tiny@main", "facebook/sam2.1-hiera-tiny@main"),
        ("transformers:somebody/detector", "somebody/detector"),
        ("transformers:PekingU/rtdetr_v2_r18vd", "PekingU/rtdetr_v2_r18vd"),
    ],
)
def test_repositories_of_the_hub_are_downloaded_by_name(call, monkeypatch, tmp_path, name, asked):
    from sam2_blocks.executor.weights import download, hub, places

    wanted = []

    def fetch(repository, *files, offline=None):
        wanted.append((str(repository), offline))
        (tmp_path / "model.safetensors").write_bytes(b"")
        return tmp_path

    for module in (download, hub, places):
        monkeypatch.setattr(module, "fetch_repository", fetch)
    code, out, _ = call("models", "download", name)
    assert code == 0
    assert wanted == [(asked, False)]
    assert str(tmp_path) in out.replace("\n", "")
