from __future__ import annotations

import pytest

from sam2_blocks.engine.places import RunRequest, Source
from sam2_blocks.errors import PipelineError
from sam2_blocks.runs.sources.values import Values

STEPS = {"keep": {"use": "detections/filter@v1", "with": {"detections": "$inputs.boxes"}}}
BOXES = {"kind": "object_detection_prediction", "default": []}


def request_for(plugins, inputs, **more):
    document = {
        "pipeline_version": 1,
        "inputs": {"boxes": BOXES, **inputs},
        "steps": STEPS,
        "outputs": {"kept": "$steps.keep.detections"},
    }
    return RunRequest(plugins.load_pipeline(document), plugins, **more)


@pytest.mark.parametrize(
    ("inputs", "settings", "name"),
    [
        ({"picture": {"kind": "image"}}, {}, "picture"),
        ({"a": {"kind": "image"}, "b": {"kind": "image", "default": None}}, {}, "a"),
        ({"a": {"kind": "image"}, "b": {"kind": "image"}}, {"a": "logo.png"}, "b"),
    ],
)
def test_pictures_go_to_the_input_that_is_left(plugins, inputs, settings, name):
    assert request_for(plugins, inputs, settings=settings).image_input == name


@pytest.mark.parametrize(
    ("inputs", "got"),
    [({}, "got none"), ({"a": {"kind": "image"}, "b": {"kind": "image"}}, "got 'a' and 'b'")],
)
def test_it_must_be_one(plugins, inputs, got):
    with pytest.raises(PipelineError, match=f"one input of kind image for --input, {got}"):
        _ = request_for(plugins, inputs).image_input


def test_our_own_sources_are_sources(plugins):
    assert isinstance(Values([], request_for(plugins, {})), Source)
