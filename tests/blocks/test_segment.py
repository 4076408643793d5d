from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from sam2_blocks import Item, Runner
from sam2_blocks.engine.resources import Resources
from sam2_blocks.testing import (
    FakeExecutor,
    run_block,
    sample_detections,
    sample_image,
)
from sam2_blocks.values import PromptSet


def test_segment_carries_class_and_confidence_over(run_one_step):
    found = sample_detections()
    result = run_one_step("sam2/segment@v1", {"image": sample_image(), "boxes": found})
    predictions = result.outputs["predictions"]
    assert predictions.data["class_name"].tolist() == ["face", "object"]
    assert np.allclose(predictions.confidence, [0.9, 0.6])
    assert np.allclose(predictions.data["iou_prediction"], 0.75)
    assert predictions.data["prompt_detection_id"].tolist() == found.data["detection_id"].tolist()


def test_segment_drops_uncertain_masks_but_keeps_their_numbers(run_one_step):
    result = run_one_step(
        "sam2/segment@v1",
        {"image": sample_image(), "boxes": sample_detections()},
        {"min_confidence": 0.8},
    )
    assert len(result.outputs["predictions"]) == 0


def test_segment_takes_no_prompts(run_one_step):
    result = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": PromptSet()})
    assert len(result.outputs["predictions"]) == 0
    assert not result.errors


def test_classes_of_prompts_are_those_of_masks_and_numbered_over_all_pictures(plugins):
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}, "prompts": {"kind": "prompts"}},
        "steps": {
            "segment": {
                "use": "sam2/segment@v1",
                "with": {"image": "$inputs.image", "prompts": "$inputs.prompts"},
            }
        },
        "outputs": {"predictions": "$steps.segment.predictions"},
    }
    box = {"box_xyxy": [2, 3, 12, 15]}
    rows = [
        [box],
        [{**box, "class_name": "cup"}, box],
        [{**box, "class_name": n} for n in ("lid", "cup")],
    ]
    items = [Item(str(n), {"image": sample_image(), "prompts": row}) for n, row in enumerate(rows)]
    resources = Resources({"sam2": FakeExecutor})
    with Runner(plugins.load_pipeline(document), plugins, resources=resources) as runner:
        found = [result.outputs["predictions"] for result in runner.run(items)]
    names = [predictions.data["class_name"].tolist() for predictions in found]
    assert names == [["object"], ["cup", "object"], ["lid", "cup"]]
    assert [predictions.class_id.tolist() for predictions in found] == [[0], [1, 0], [2, 1]]


def test_classes_of_boxes_go_before_those_of_their_prompts(run_one_step):
    points = [{"point_coords": [[5, 6]], "class_name": name} for name in ("cup", "lid")]
    inputs = {"image": sample_image(), "boxes": sample_detections(), "prompts": points}
    predictions = run_one_step("sam2/segment@v1", inputs).outputs["predictions"]
    assert predictions.data["class_name"].tolist() == ["face", "object"]


def test_segment_takes_ten_thousand_prompts(run_one_step):
    boxes = np.tile(np.array([[2, 3, 12, 15]], np.float32), (10_000, 1))
    prompts = PromptSet.from_boxes(boxes)
    result = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": prompts})
    assert len(result.outputs["predictions"]) == 10_000


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([12, 3, 2, 15], "inverted"),
        ([2, 15, 12, 3], "inverted"),
        ([100, 100, 120, 120], "outside"),
    ],
)
def test_segment_refuses_meaningless_boxes(run_one_step, box, message):
    prompts = PromptSet.from_boxes([[1, 1, 5, 5], box])
    [error] = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": prompts}).errors
    assert "prompt 1" in error.message
    assert message in error.message


def test_segment_clips_boxes_that_reach_outside(run_one_step):
    prompts = PromptSet.from_boxes([[20, 10, 90, 90]])
    with pytest.warns(UserWarning, match="clipped"):
        result = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": prompts})
    assert result.outputs["predictions"].xyxy[0].tolist() == [20, 10, 31, 23]


def test_segment_answers_on_tiles_where_asked(run_one_step):
    inputs = {"image": sample_image(), "boxes": sample_detections()}
    whole = run_one_step("sam2/segment@v1", inputs).outputs["predictions"]
    tiled = run_one_step("sam2/segment@v1", inputs, {"tile_px": 18}).outputs["predictions"]
    assert tiled.mask == whole.mask
    assert tiled.data["class_name"].tolist() == ["face", "object"]


def test_tiles_want_the_picture(run_one_step):
    [embedding] = FakeExecutor().embed([sample_image()])
    inputs = {"embedding": embedding, "boxes": sample_detections()}
    [error] = run_one_step("sam2/segment@v1", inputs, {"tile_px": 18}).errors
    assert "tile_px = 18 cuts the picture itself, and got its embedding" in error.message


BOXES = [[2, 3, 12, 15], [500, 3, 600, 9], [14, 5, 30, 20]]


def detections(boxes=BOXES):
    return sv.Detections(np.array(boxes, float), class_id=np.arange(len(boxes)))


def areas(found):
    return [int(np.count_nonzero(found.mask[index])) for index in range(len(found))]


@pytest.mark.parametrize("bad", [[500, 3, 600, 9], [9, 3, 4, 9], [np.nan, 3, 4, 9]])
def test_a_bad_box_of_a_detector_costs_its_own_row(run_one_step, bad):
    found = detections()
    found.xyxy[1] = bad  # supervision refuses NaN only when detections are made
    with pytest.warns(UserWarning, match="1 of 3 prompts mean nothing in their image"):
        result = run_one_step("sam2/segment@v1", {"image": sample_image(), "boxes": found})
    predictions = result.outputs["predictions"]
    assert areas(predictions) == [120, 0, 240]
    reasons = predictions.data["prompt_error"].tolist()
    assert reasons[0] == reasons[2] == ""
    assert reasons[1].startswith("prompt 1: box")
    assert predictions.class_id.tolist() == [0, 1, 2]


def test_a_bad_box_fails_the_picture_where_asked(run_one_step):
    inputs = {"image": sample_image(), "boxes": detections()}
    [error] = run_one_step("sam2/segment@v1", inputs, {"on_bad_prompt": "error"}).errors
    assert error.message.startswith("prompt 1: box [500, 3, 600, 9] lies wholly outside")


def test_a_bad_prompt_is_skipped_where_asked(run_one_step):
    inputs = {"image": sample_image(), "prompts": PromptSet.from_boxes(BOXES)}
    with pytest.warns(UserWarning, match="1 of 3 prompts"):
        result = run_one_step("sam2/segment@v1", inputs, {"on_bad_prompt": "skip"})
    assert areas(result.outputs["predictions"]) == [120, 0, 240]


def test_boxes_and_clicks_are_one_prompt_an_object():
    given = detections([BOXES[0], BOXES[2]])
    clicks = [{"point_coords": [[4, 5]]}, {"point_coords": [[20, 9]], "point_labels": [0]}]
    seen = []

    class Seeing(FakeExecutor):
        def segment(self, items, **options):
            seen.extend(items[0][1].prompts)
            return super().segment(items, **options)

    result = run_block(
        "sam2/segment@v1",
        {"image": sample_image(), "boxes": given},
        resources=Resources({"sam2": Seeing}),
        prompts=clicks,
    )
    assert [prompt.box_xyxy.tolist() for prompt in seen] == [BOXES[0], BOXES[2]]
    assert [prompt.point_coords.tolist() for prompt in seen] == [[[4, 5]], [[20, 9]]]
    assert [prompt.point_labels.tolist() for prompt in seen] == [[1], [0]]
    assert result.outputs["predictions"].class_id.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([{"point_coords": [[4, 5]]}], "got 2 boxes and 1 prompts"),
        ([{"point_coords": [[4, 5]]}, {"box_xyxy": [1, 2, 3, 4]}], "prompt 1 has a box of its own"),
    ],
)
def test_boxes_and_prompts_that_do_not_match_are_refused(prompts, message):
    boxes = detections([BOXES[0], BOXES[2]])
    inputs = {"image": sample_image(), "boxes": boxes}
    [error] = run_block("sam2/segment@v1", inputs, prompts=prompts).errors
    assert message in error.message


def test_an_empty_mask_stays_empty(run_one_step):
    first = sample_detections()
    masks = np.zeros((2, 24, 32), bool)
    masks[0, 3:15, 2:12] = True
    first.mask = masks
    first.xyxy = np.array([[2, 3, 12, 15], [0, 0, 0, 0]], np.float32)
    result = run_one_step("sam2/segment@v1", {"image": sample_image(), "boxes": first})
    predictions = result.outputs["predictions"]
    assert areas(predictions) == [120, 0]
    assert predictions.data["class_name"].tolist() == ["face", "object"]
    assert "is empty and has no box" in predictions.data["prompt_error"][1]
