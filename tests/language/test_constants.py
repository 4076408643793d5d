from __future__ import annotations

import pytest

from sam2_blocks.errors import PipelineError
from sam2_blocks.language.constants import checked_inputs, wrong_constants

INPUTS = {
    "image": {"kind": "image"},
    "device": {"kind": "string", "default": "auto"},
    "model": {"kind": "string", "default": "nano"},
    "least": {"kind": "float", "default": 0.5},
    "classes": {"kind": "list_of_values", "default": None},
}
SEGMENT = {
    "image": "$inputs.image",
    "prompts": [{"box_xyxy": [1, 1, 9, 9]}],
    "device": "$inputs.device",
    "model": "$inputs.model",
    "min_confidence": "$inputs.least",
}


def document(**defaults):
    inputs = {name: dict(declared) for name, declared in INPUTS.items()}
    for name, value in defaults.items():
        inputs[name]["default"] = value
    return {
        "pipeline_version": 1,
        "inputs": inputs,
        "steps": {"segment": {"use": "sam2/segment@v1", "with": SEGMENT}},
        "outputs": {"predictions": "$steps.segment.predictions"},
    }


WRONG = [
    (
        "device",
        "tpu",
        "as 'device' of step 'segment': there is no device 'tpu'. Did you mean 'cpu'",
    ),
    ("device", "hpu:0", "there is no device 'hpu:0'."),
    (
        "model",
        "nanno",
        "as 'model' of step 'segment': there is no model 'nanno'. Did you mean 'nano'",
    ),
    (
        "least",
        1.5,
        "as 'min_confidence' of step 'segment': Input should be less than or equal to 1",
    ),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_value_that_no_parameter_takes_is_found_before_any_item(plugins, name, value, message):
    pipeline = plugins.load_pipeline(document())
    [(where, wrong)] = wrong_constants(pipeline, {name: value}, plugins.model_names.checks)
    assert where == name
    assert message in wrong


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_so_is_a_default(plugins, name, value, message):
    with pytest.raises(PipelineError) as caught:
        plugins.load_pipeline(document(**{name: value}))
    [problem] = caught.value.problems
    assert f"inputs.{name}.default: " in str(caught.value)
    assert message in problem.message


def test_a_value_that_is_no_such_thing_at_all(plugins):
    pipeline = plugins.load_pipeline(document())
    [(where, wrong)] = wrong_constants(pipeline, {"least": "much"}, {})
    assert (where, wrong[:40]) == ("least", "as 'min_confidence' of step 'segment': w")


@pytest.mark.parametrize(
    "values", [{}, {"device": None}, {"device": "cuda:7", "least": 0.25, "model": "hiera_tiny"}]
)
def test_what_is_right_or_not_there_is_let_through(plugins, values):
    pipeline = plugins.load_pipeline(document())
    assert list(wrong_constants(pipeline, values, plugins.model_names.checks)) == []


def test_each_class_of_a_list_is_looked_at(plugins, tmp_path):
    (tmp_path / "config.json").write_text('{"id2label": {"0": "cat", "1": "dog"}}')
    values = {"image": "$inputs.image", "model": "$inputs.model", "classes": "$inputs.classes"}
    given = {
        **document(model=str(tmp_path)),
        "steps": {"find": {"use": "transformers/detect@v1", "with": values}},
    }
    given["outputs"] = {"found": "$steps.find.detections"}
    pipeline = plugins.load_pipeline(given)
    settings = {"classes": ["cat", "dgo"], "model": str(tmp_path)}
    [(where, wrong)] = wrong_constants(pipeline, settings, plugins.model_names.checks)
    assert where == "classes"
    assert "knows no class 'dgo'. Did you mean 'dog'?" in wrong


def test_inputs_that_become_names_are_known(plugins):
    pipeline = plugins.load_pipeline(document())
    assert checked_inputs(pipeline, {"model": None}) == {"model"}
    assert checked_inputs(pipeline, {}) == frozenset()
