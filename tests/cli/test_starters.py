"""What ``init`` and ``new block`` write works as it stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sam2_blocks import load_pipeline, read_image
from sam2_blocks.cli import starters
from sam2_blocks.cli.starters import init, new_block, pipeline_templates, plugin_files
from sam2_blocks.engine.places import FrameChoice
from sam2_blocks.errors import UsageError
from sam2_blocks.runs.run import run_pipeline
from tests.conftest import PICTURES, ROOT


@pytest.mark.parametrize("template", sorted(pipeline_templates()))
def test_every_template_is_valid(template, plugins, tmp_path):
    init(template, tmp_path / "pipeline.yaml")
    pipeline = load_pipeline(tmp_path / "pipeline.yaml", plugins.manifests, plugins.kinds)
    assert not pipeline.warnings
    assert pipeline.title


@pytest.mark.parametrize("template", ["automatic", "boxes", "points"])
def test_every_template_for_a_picture_runs(template, tmp_path):
    init(template, tmp_path / "pipeline.yaml")
    picture = PICTURES / "coffee.jpg"
    [result] = run_pipeline(tmp_path / "pipeline.yaml", picture, out=tmp_path / "out")
    assert not result.errors
    assert len(result.outputs["predictions"]) > 1
    assert (tmp_path / "out" / "overlay.png").stat().st_size > 0


@pytest.mark.filterwarnings("ignore:video 'toys.mp4'. max_objects = 8 are followed")
def test_the_template_for_a_video_runs(tmp_path):
    init("video", tmp_path / "pipeline.yaml")
    clip = ROOT / "examples" / "videos" / "toys.mp4"
    run = run_pipeline(
        tmp_path / "pipeline.yaml", clip, out=tmp_path / "out", frames=FrameChoice(stop="3")
    )
    for result in run:
        assert not result.errors
        assert len(result.outputs["predictions"]) > 1
    assert (tmp_path / "out" / "toys.mp4").stat().st_size > 0


def test_the_template_for_a_data_set_runs(tmp_path):
    init("dataset", tmp_path / "pipeline.yaml")
    settings = {"annotations": str(ROOT / "examples" / "coco" / "boxes.json")}
    run = run_pipeline(
        tmp_path / "pipeline.yaml", PICTURES, out=tmp_path / "out", settings=settings
    )
    assert not [result for result in run if result.errors]
    masks = json.loads((tmp_path / "out" / "masks.json").read_text())
    assert masks["annotations"]


@pytest.mark.filterwarnings("ignore:coffee.jpg. boxes reach outside")  # of random weights
@pytest.mark.parametrize(
    ("template", "model", "family"),
    [("detector", "detector", "rt_detr_v2"), ("text", "grounder", "owlv2")],
)
def test_templates_for_detectors_run(template, model, family, tiny_detector, tmp_path):
    init(template, tmp_path / "pipeline.yaml")
    settings = {model: str(tiny_detector(family))}
    [result] = run_pipeline(tmp_path / "pipeline.yaml", PICTURES / "coffee.jpg", settings=settings)
    assert not result.errors
    assert result.outputs["overlay"]


def test_what_to_do_next_is_said_as_it_is_typed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(starters.out, "width", 120)
    init("text", Path("words.yaml"))
    assert capsys.readouterr().out.splitlines() == [
        "words.yaml: read it, then",
        "  pip install 'sam2-blocks[transformers]'",
        "  sam2-blocks run words.yaml --input pictures --out out --set 'phrases=[cup, red car]'",
    ]
    new_block("my/gamma@v1")
    assert "sam2-blocks-my has the block my/gamma@v1. Next" in capsys.readouterr().out
    new_block("other/gamma")
    assert "  pip install -e '.[dev]'" in capsys.readouterr().out.splitlines()


def test_a_file_that_is_there_is_kept(tmp_path):
    (tmp_path / "pipeline.yaml").write_text("mine")
    with pytest.raises(UsageError, match=r"pipeline\.yaml is there already; give another one"):
        init("boxes", tmp_path / "pipeline.yaml")
    assert (tmp_path / "pipeline.yaml").read_text() == "mine"


def test_an_unknown_template_is_refused_with_a_hint(tmp_path):
    with pytest.raises(UsageError, match=r"no template 'box'\. Did you mean 'boxes'\?"):
        init("box", tmp_path / "pipeline.yaml")


@pytest.mark.parametrize("name", ["gamma", "my/Gamma", "my/", "a/b/c", "../x", "my/class"])
def test_a_block_needs_a_name_of_two_parts(name):
    with pytest.raises(UsageError, match="wants NAMESPACE/NAME in small letters"):
        new_block(name)


def test_a_block_that_exists_is_not_made_again():
    with pytest.raises(UsageError, match="there is a block sam2/segment@v1 already"):
        new_block("sam2/segment")


def test_every_template_file_is_used():
    used = len(plugin_files("my", "dim_light"))
    assert used == len(list((starters.TEMPLATES / "plugin").iterdir()))
    assert not [text for text in plugin_files("my", "dim_light").values() if "__PACK" in text]


def test_a_new_block_passes_its_tests_and_style_at_once_and_runs_when_installed(tmp_path):
    folder = tmp_path / "plugin"
    new_block("my/dim_light", folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("SAM2_BLOCKS_PLUGINS", None)

    def run(*words, **more):
        environment.update(more)
        done = subprocess.run(
            [sys.executable, "-m", *map(str, words)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "2 passed" in run("pytest", "-q", "-p", "no:cacheprovider")
    run("ruff", "check", "--isolated", "--select", "E,F,I,W", "--line-length", "100", ".")
    target = tmp_path / "installed"
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "-q"]
    run("pip", "install", *offline, "--target", target, folder)
    picture = PICTURES / "coins.jpg"
    both = os.pathsep.join([str(ROOT), str(target)])
    run(
        "sam2_blocks",
        "run",
        "pipeline.yaml",
        "-i",
        picture,
        "-o",
        tmp_path / "out",
        PYTHONPATH=both,
    )
    made = read_image(tmp_path / "out" / "image.png").pixels
    assert (made == 255 - read_image(picture).pixels).all()
