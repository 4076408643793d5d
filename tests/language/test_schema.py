from __future__ import annotations

import jsonschema
import pytest
from ruamel.yaml import YAML

from sam2_blocks.language.documents import parse_yaml
from sam2_blocks.language.manifest import load_manifest, manifest_dir
from sam2_blocks.language.schema import manifest_schema, pipeline_schema, step_schema
from tests.conftest import ROOT
from tools.generate import generated_files

yaml = YAML(typ="safe", pure=True)


def test_generated_files_are_up_to_date():
    for path, text in generated_files().items():
        assert path.read_text(encoding="utf-8") == text, (
            f"{path} is out of date; run python -m tools.generate"
        )


@pytest.mark.parametrize("path", sorted(manifest_dir().glob("*.yaml")), ids=lambda path: path.stem)
def test_manifests_fit_their_schema(path):
    jsonschema.Draft202012Validator(manifest_schema()).validate(yaml.load(path))


@pytest.fixture
def validator(plugins):
    schema = pipeline_schema(plugins.manifests.values())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", ["quickstart", "points", "coco_folder"])
def test_examples_fit_the_schema(validator, name):
    validator.validate(yaml.load(ROOT / "examples" / f"{name}.yaml"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sam2/segment@v1", "sam2/segment@v2"),
        ("boxes: $steps", "boxs: $steps"),
        ("model: $inputs.model", "model: 5"),
        ("$inputs.image", "$input.image"),
        ("image: {kind: image}", "image: {knd: image}"),
        (", boxes: $steps.boxes.detections", ""),
    ],
)
def test_an_editor_sees_a_mistake(validator, old, new):
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    assert old in text
    assert list(validator.iter_errors(yaml.load(text.replace(old, new))))


def test_an_editor_gets_one_branch_a_block(validator, plugins):
    branches = validator.schema["$defs"]["StepDeclaration"]["allOf"]
    by_id = {branch["if"]["properties"]["use"]["const"]: branch["then"] for branch in branches}
    assert list(by_id) == sorted(plugins.manifests)
    segment = by_id["sam2/segment@v1"]["properties"]["with"]["properties"]
    assert segment["min_confidence"]["default"] == 0
    assert segment["min_confidence"]["anyOf"][0]["maximum"] == 1


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ("boxes: $steps", "boxs: $steps", ["steps", "segment", "with"], "'boxs' was unexpected"),
        ("with:", "wiht:", ["steps", "segment"], "'wiht' was unexpected"),
        ("sam2/segment@v1", "sam2/segmnt@v1", ["steps", "segment", "use"], "is not one of"),
    ],
)
def test_an_error_names_the_key(validator, old, new, path, message):
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    head, tail = text.split("  segment:")
    errors = list(validator.iter_errors(yaml.load(f"{head}  segment:{tail.replace(old, new, 1)}")))
    [error] = [error for error in errors if message in error.message]
    assert list(error.path) == path


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_fits_also_with_blocks_of_others(validator, path):
    document = yaml.load(path)
    if "pipeline_version" in document:
        validator.validate(document)


def test_inputs_of_plain_kinds_may_be_written_out(plugins):
    text = """\
manifest_version: 1
id: test/label@v1
title: Label
summary: Needs a name and a number.
entry: nowhere:Label
inputs: {name: {kind: string, required: true}, size: {kind: float, required: true}}
outputs: {name: {kind: string}}
"""
    manifest = load_manifest(text, "label.yaml", plugins.kinds)
    check = jsonschema.Draft202012Validator(step_schema(manifest))
    check.validate({"use": "test/label@v1", "with": {"name": "cup", "size": 0.5}})
    assert list(check.iter_errors({"use": "test/label@v1", "with": {"name": "cup", "size": "big"}}))


def test_an_editor_strikes_out_a_deprecated_block(plugins):
    manifest = plugins.manifests["sam2/embed@v1"]
    assert "deprecated" not in step_schema(manifest)
    assert step_schema(manifest.model_copy(update={"deprecated": "use v2."}))["deprecated"] is True


FLOW = """\
pipeline_version: 1
inputs: {image: {kind: image}, boxes: {kind: object_detection_prediction}}
steps:
  crops: {use: image/crop@v1, with: {image: $inputs.image, detections: $inputs.boxes}}
  each:
    for_each: $steps.crops.crops
    on_error: drop
    when:
      all: [{value: $inputs.boxes, is: at_least, to: 2}, {not: {value: $inputs.boxes, is: empty}}]
    use: sam2/automatic@v1
    with: {image: $each}
  other: {uses: ./other.yaml, with: {image: $inputs.image}}
  y: {use: flow/first@v1, with: {values: [$steps.each.predictions, $steps.other.masks]}}
outputs:
  masks: {value: $steps.y.value, default: empty}
  crops: $steps.crops.crops
"""


def test_an_editor_knows_flow(validator):
    assert list(validator.iter_errors(parse_yaml(FLOW).data)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("is: at_least", "is: more"),
        ("on_error: drop", "on_error: ignore"),
        ("for_each: $steps.crops.crops", "for_each: crops"),
        ("values: [", "values: [x, "),
        ("uses: ./other.yaml", "uses: 3"),
        ("crops: $steps.crops.crops\n", "crops: 7\n"),
        ("{value: $steps.y.value", "{values: $steps.y.value"),
    ],
)
def test_an_editor_underlines_mistakes_in_flow(validator, old, new):
    assert old in FLOW
    assert list(validator.iter_errors(parse_yaml(FLOW.replace(old, new)).data))
