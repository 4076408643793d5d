from __future__ import annotations

import re
import shlex

import pytest
from ruamel.yaml import YAML
from typer.core import TyperGroup
from typer.main import get_command

from sam2_blocks import load_pipeline
from sam2_blocks.cli import app as cli
from sam2_blocks.executor.weights.catalogue import MODELS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line
    for language, text in BLOCKS
    if language == "bash"
    for line in re.findall(r"sam2-blocks [^&\n]+", text)
]


def test_the_pipeline_it_explains_is_the_quickstart():
    [shown] = [
        text for language, text in BLOCKS if language == "yaml" and "pipeline_version" in text
    ]
    yaml = YAML(typ="safe", pure=True)
    written = yaml.load(ROOT / "examples" / "quickstart.yaml")
    explained = yaml.load(shown)
    assert explained == {key: written[key] for key in explained}


def test_its_python_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    wanted = ("load_executor", "executor.track")
    python = [text for language, text in BLOCKS if language == "python"]
    pictures, video = [code for code in python if any(word in code for word in wanted)]
    names: dict[str, object] = {}
    exec(pictures, names)
    assert len(names["detections"]) == 1
    exec(video, names)
    assert names["tracks"].tracker_id.tolist() == [1, 2]


def parse(words):
    """Parse a command line as far as the command it ends at, without running it."""
    command = get_command(cli.app)
    with command.make_context("sam2-blocks", list(words)) as context:
        while isinstance(command, TyperGroup):
            name, command, words = command.resolve_command(context, words)
            context = command.make_context(name, list(words), parent=context)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_parse_and_name_files_that_exist(command, monkeypatch, plugins):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)[1:]
    parse(words)
    for word in words:
        if word.startswith("examples/"):
            assert (ROOT / word).exists(), word
    if words[0] == "run" and "detector" not in words[1]:
        load_pipeline(words[1], plugins.manifests, plugins.kinds)


def test_the_mistakes_it_shows_are_what_is_printed(plugins, tmp_path):
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("#", "title", "descr"))]
    text = "\n".join(lines).replace("model: $inputs", "modl: $inputs")
    text = text.replace(
        "with: {image: $inputs.image, predictions",
        "with: {image: $steps.boxes.detections, predictions",
    )
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    with pytest.raises(Exception, match="modl") as caught:
        load_pipeline(path, plugins.manifests, plugins.kinds)
    for line in str(caught.value).splitlines():
        assert line.replace(str(path), "pipeline.yaml") in README


def test_it_lists_every_family_of_models():
    for name in MODELS:
        assert name in README or name.partition("/")[0] == "sam2"
