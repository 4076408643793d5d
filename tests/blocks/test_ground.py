from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks import Resources
from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.testing import FakeDetector, check_block, run_block, sample_image

BLOCK = "transformers/ground@v1"


@pytest.fixture
def ground(run_one_step):
    def run(**params):
        return run_one_step(BLOCK, {"image": sample_image()}, params)

    return run


def test_examples(plugins):
    check_block(BLOCK, plugins=plugins)


def test_classes_are_the_phrases_as_written(ground):
    found = ground(phrases=["Cup", "red car"]).outputs["detections"]
    assert found.data["class_name"].tolist() == ["Cup", "red car"]
    assert found.class_id.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"phrases": []}, []),
        ({"phrases": ["a", "b"], "threshold": 0.6}, ["a"]),
        ({"phrases": ["a", "b", "c"], "max_count": 2}, ["a", "b"]),
    ],
)
def test_parameters_choose(ground, params, names):
    assert ground(**params).outputs["detections"].data["class_name"].tolist() == names


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"phrases": ["a", "A."]}, "the phrases 'a' and 'A.' are the same"),
        ({"phrases": ["a", " "]}, "the phrase ' ' says nothing"),
        ({"phrases": ["a", "b"], "max_phrases": 1}, "there are 2 phrases, and max_phrases is 1"),
    ],
)
def test_phrases_that_cannot_be_meant_are_errors(ground, params, message):
    [error] = ground(**params).errors
    assert message in error.message


class Doubling(FakeDetector):
    """Finds one object twice for each phrase."""

    def ground(self, images, phrases, **options):
        found = super().ground(images, phrases, **options)
        return [FoundObjects.concatenate([of, of]) for of in found]


@pytest.mark.parametrize(("nms_iou", "count"), [(0.7, 2), (1, 4)])
def test_of_two_boxes_of_a_phrase_one_stays(plugins, tmp_path, nms_iou, count):
    resources = Resources({"transformers": Doubling}, tmp_path)
    inputs = {"image": sample_image()}
    found = run_block(
        BLOCK, inputs, plugins=plugins, resources=resources, phrases=["a", "b"], nms_iou=nms_iou
    ).outputs["detections"]
    assert len(found) == count


def test_a_seeded_model_reads_phrases(plugins, tiny_detector, tmp_path):
    found = run_block(
        BLOCK,
        {"image": sample_image()},
        plugins=plugins,
        resources=Resources(plugins.executors, tmp_path),
        model=str(tiny_detector("grounding_dino")),
        device="cpu",
        phrases=["Red Car", "cup"],
        text_threshold=0,
        nms_iou=1,
    ).outputs["detections"]
    assert set(np.unique(found.data["class_name"])) == {"Red Car", "cup"}
    assert (found.data["class_name"] == np.array(["Red Car", "cup"])[found.class_id]).all()
