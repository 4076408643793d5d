from __future__ import annotations

import pytest

from sam2_blocks.kinds import Kind
from sam2_blocks.testing import check_block, run_block, sample_value


def test_a_kind_without_a_sample_says_how_to_give_one():
    with pytest.raises(
        LookupError, match=r"no sample of kind 'sound'; .* check_block\(samples=…\)"
    ):
        sample_value(Kind("sound", "A sound.", check=lambda value: value))


def test_a_block_is_run_on_one_item(plugins):
    found = sample_value("object_detection_prediction")
    result = run_block("detections/filter@v1", {"detections": found}, plugins=plugins, max_count=1)
    assert len(result.outputs["detections"]) == 1


def test_a_block_that_is_not_there_is_named(plugins):
    with pytest.raises(
        AssertionError, match=r"no block 'a/b@v1'; there are \['detections/classify_from@v1'"
    ):
        check_block("a/b@v1", plugins=plugins)


def test_a_block_without_examples_is_refused(plugins):
    bare = plugins.manifests["sam2/embed@v1"].model_copy(update={"examples": []})
    plugins.manifests["sam2/embed@v1"] = bare
    with pytest.raises(AssertionError, match="sam2/embed@v1: the manifest has no examples"):
        check_block("sam2/embed@v1", plugins=plugins)


def test_an_example_that_fails_is_named(plugins):
    with pytest.raises(AssertionError, match=r"draw/masks@v1, example '.*', item 'sample': "):
        check_block("draw/masks@v1", plugins=plugins, samples={"image": "no picture"})
