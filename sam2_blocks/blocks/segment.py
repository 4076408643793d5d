"""``sam2/segment@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol, cast

import numpy as np
import supervision as sv

from sam2_blocks.blocks.embed import ComingPictures, ModelItem, executor_for
from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import has_pixels, to_detections
from sam2_blocks.options import SegmentOptions, settings_of
from sam2_blocks.strategies.segment import OnBadPrompt, SegmentAnswer, SegmentJob, segment_jobs
from sam2_blocks.values import Embedding, Image, PromptSet

NO_MASK = "the mask that it comes from is empty and has no box"


class SegmentItem(ModelItem, Protocol):
    """One picture and its prompts; see the manifest."""

    image: Image | None
    embedding: Embedding | None
    boxes: sv.Detections | None
    prompts: PromptSet | None
    multimask_output: bool
    min_confidence: float
    mask_threshold: float
    max_hole_area: int
    max_sprinkle_area: int
    tile_px: int
    on_bad_prompt: Literal["auto", "error", "skip"]


class Segment:
    """Turn boxes and points into masks; prompts of all pictures are decoded together."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._numbers: dict[str, int] = {}  # of classes without an id, in all pictures
        self._coming = ComingPictures()

    def run(
        self, items: Sequence[SegmentItem]
    ) -> Sequence[Mapping[str, sv.Detections] | Exception]:
        """See the manifest."""
        made = [self._job_or_error(item) for item in items]
        jobs = [job for job in made if isinstance(job, SegmentJob)]
        self._coming.note_encoders([job.executor if job.encodes else None for job in jobs])
        answers = iter(segment_jobs(jobs))
        return [
            _finish(item, job, next(answers), self._numbers) if isinstance(job, SegmentJob) else job
            for item, job in zip(items, made, strict=True)
        ]

    def expect(self, image: Image) -> None:
        """Announce a picture to the model of the last ones; see `ExpectingBlock`."""
        self._coming.announce(image)

    def _job_or_error(self, item: SegmentItem) -> SegmentJob | ValueError:
        try:
            prompts, no_object = join_prompts(item.boxes, item.prompts)
        except ValueError as error:
            return error
        picture = item.embedding or item.image
        assert picture is not None  # the manifest requires one of them
        return SegmentJob(
            executor=executor_for(self._resources, item, item.embedding),
            picture=picture,
            prompts=prompts,
            options=settings_of(SegmentOptions, item),
            tile_px=item.tile_px,
            on_bad_prompt=_policy(item),
            no_object=no_object,
        )


def join_prompts(
    boxes: sv.Detections | None, prompts: PromptSet | None
) -> tuple[PromptSet, Mapping[int, str]]:
    """Make one prompt an object of detections, of prompts, or of both.

    Args:
        boxes: detections, whose boxes are prompts.
        prompts: prompts of their own; with detections, points for each of these, in their order.

    Returns:
        The prompts, and those that stand for no object with the reason: an empty mask has no box.

    Raises:
        ValueError: if there are not as many prompts as detections, or a prompt has a box, too.
    """
    if boxes is None:
        return prompts or PromptSet(), {}
    joined = PromptSet.from_boxes(boxes.xyxy)
    if prompts is not None:
        joined = _add_prompts(joined, prompts)
    rows = np.flatnonzero(~has_pixels(boxes)).tolist()
    return joined, {index: f"prompt {index}: {NO_MASK}" for index in rows}


def _add_prompts(boxes: PromptSet, prompts: PromptSet) -> PromptSet:
    if len(boxes) != len(prompts):
        raise ValueError(
            f"boxes and prompts are matched by order, one of each an object; got {len(boxes)} "
            f"boxes and {len(prompts)} prompts. Give as many, or only one of the two."
        )
    both = [i for i, prompt in enumerate(prompts.prompts) if prompt.box_xyxy is not None]
    if both:
        raise ValueError(
            f"prompt {both[0]} has a box of its own, and 'boxes' gives it another. Give points "
            "in 'prompts', or only one of the two."
        )
    pairs = zip(boxes.prompts, prompts.prompts, strict=True)
    return PromptSet(tuple(replace(prompt, box_xyxy=box.box_xyxy) for box, prompt in pairs))


def _policy(item: SegmentItem) -> OnBadPrompt:
    """A detector's boxes are nobody's mistake; what somebody wrote is."""
    if item.on_bad_prompt == "auto":
        return "error" if item.boxes is None else "skip"
    return item.on_bad_prompt


def _finish(
    item: SegmentItem,
    job: SegmentJob,
    answer: SegmentAnswer | ValueError,
    numbers: dict[str, int],
) -> Mapping[str, sv.Detections] | Exception:
    if isinstance(answer, ValueError):
        return answer
    detections = to_detections(
        answer.prediction,
        prompting=item.boxes,
        prompts=job.prompts,
        image_id=job.name,
        class_numbers=numbers,
    )
    if answer.skipped:
        reasons = [answer.skipped.get(index, "") for index in range(len(detections))]
        detections.data["prompt_error"] = np.array(reasons, np.str_)
    keep = np.asarray(detections.data["iou_prediction"], dtype=float) >= item.min_confidence
    return {"predictions": cast(sv.Detections, detections[keep])}
