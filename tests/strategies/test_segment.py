from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.masks.rle import rle_area
from sam2_blocks.options import SegmentOptions
from sam2_blocks.strategies.segment import SegmentJob, segment_jobs
from sam2_blocks.testing import FakeExecutor
from sam2_blocks.values import Image, Prompt, PromptSet

BOX, OTHER = [2, 3, 12, 15], [1, 1, 5, 5]
OUTSIDE = [200, 3, 300, 9]


class Counting(FakeExecutor):
    """Remembers how many items, prompts and which options each call had."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def segment(self, items, **options):
        self.calls.append(([len(prompts) for _, prompts in items], options))
        return super().segment(items, **options)


@pytest.fixture
def executor():
    return Counting()


def picture(name="a.png"):
    return Image(np.zeros((24, 32, 3), np.uint8), name)


def job(executor, *boxes, name="a.png", **fields):
    return SegmentJob(executor, picture(name), PromptSet.from_boxes(list(boxes)), **fields)


def test_one_call_for_all_pictures_with_the_same_options(executor):
    threshold = SegmentOptions(mask_threshold=2.0)
    jobs = [
        job(executor, BOX, name="a"),
        job(executor, BOX, OTHER, name="b", options=threshold),
        job(executor, OTHER, name="c"),
    ]
    answers = segment_jobs(jobs)
    assert [len(answer.prediction) for answer in answers] == [1, 2, 1]
    assert [prompts for prompts, _ in executor.calls] == [[1, 1], [2]]
    assert executor.calls[1][1]["mask_threshold"] == 2.0
    assert executor.embedded == ["a", "b", "c"]
    assert [rle_area(a.prediction.rles[0]) for a in answers] == [120, 120, 16]


def test_a_picture_without_prompts_costs_nothing(executor):
    [answer] = segment_jobs([job(executor)])
    assert len(answer.prediction) == 0
    assert executor.embedded == executor.calls == []


def test_a_bad_prompt_is_skipped_where_asked(executor):
    with pytest.warns(UserWarning, match=r"2 of 3 prompts .* b.png: prompt 0: box .* outside"):
        skipping, good = segment_jobs(
            [
                job(executor, OUTSIDE, [np.nan] * 4, BOX, name="b.png", on_bad_prompt="skip"),
                job(executor),
            ]
        )
    assert len(good.prediction) == 0
    assert list(skipping.skipped) == [0, 1]
    assert "not finite" in skipping.skipped[1]
    assert [rle_area(rle) for rle in skipping.prediction.rles] == [0, 0, 120]


def test_a_bad_prompt_fails_its_job_alone(executor):
    bad, good = segment_jobs([job(executor, BOX, OUTSIDE), job(executor, BOX)])
    assert isinstance(bad, ValueError)
    assert str(bad).startswith("prompt 1: box [200, 3, 300, 9] lies wholly outside")
    assert rle_area(good.prediction.rles[0]) == 120


def test_prompts_without_an_object_are_not_looked_at(executor):
    given = job(executor, [0, 0, 0, 0], OUTSIDE, BOX, no_object={0: "prompt 0: empty"})
    [failed] = segment_jobs([given])
    assert str(failed).startswith("prompt 1: box")  # by its own number
    [answer] = segment_jobs([job(executor, [0] * 4, BOX, no_object={0: "prompt 0: empty"})])
    assert answer.skipped == {0: "prompt 0: empty"}
    assert [rle_area(rle) for rle in answer.prediction.rles] == [0, 120]


def test_tiles_and_whole_pictures_go_together(executor):
    [embedding] = executor.embed([picture("whole")])
    jobs = [
        job(executor, BOX, tile_px=18),
        SegmentJob(executor, embedding, PromptSet.from_boxes([BOX])),
        SegmentJob(executor, embedding, PromptSet.from_boxes([BOX]), tile_px=18),
        SegmentJob(
            executor, picture(), PromptSet((Prompt(mask_input=np.zeros((1, 4, 4))),)), tile_px=9
        ),
        job(executor, BOX, name="last"),
    ]
    tiled, whole, refused, mask, last = segment_jobs(jobs)
    areas = [rle_area(answer.prediction.rles[0]) for answer in (tiled, whole, last)]
    assert areas == [120, 120, 120]
    assert "tile_px = 18 cuts the picture itself, and got its embedding" in str(refused)
    assert "mask_input is for whole pictures" in str(mask)
