from __future__ import annotations

import json
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
from tests.pages import own_port, run_page

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


def test_everything_runs_in_order_in_one_shell(tmp_path):
    """`.ci/readme` does the same with the environments and installations."""
    with own_port():
        printed = run_page(ROOT / "README.md", tmp_path)
    shown = [line for line in README.splitlines() if line.startswith("│")]
    assert shown
    assert all(line in printed for line in shown)  # the table it shows is what is printed
    [answer] = re.findall(r'^\{.*"predictions.*$', printed, re.M)
    [prediction] = json.JSONDecoder().raw_decode(answer)[0]["predictions"]
    assert prediction["confidence"] > 0.8
    assert sum(prediction["masks"]["size"]) == 768 + 606


def test_it_is_short():
    assert len(README.splitlines()) < 160


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
    if words[0] == "run" and words[1].startswith("examples/") and "detector" not in words[1]:
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
    page = (ROOT / "docs" / "how-to" / "write-a-pipeline.md").read_text(encoding="utf-8")
    for line in str(caught.value).splitlines():
        assert line.replace(str(path), "pipeline.yaml") in page


def test_it_lists_every_family_of_models():
    for name in MODELS:
        assert name in README or name.partition("/")[0] == "sam2"
