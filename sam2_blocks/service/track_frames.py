"""One frame of a session: checked before anything is done, taken by the model, answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from sam2_blocks.executors import TrackSession
from sam2_blocks.masks.rle import coco_to_rle
from sam2_blocks.prompts import check_prompts
from sam2_blocks.requests import PolygonForm
from sam2_blocks.service.answers import to_polygon_rows, to_rle_rows
from sam2_blocks.service.errors import RequestError
from sam2_blocks.track_requests import (
    MaskFormat,
    TrackedPrediction,
    TrackFrame,
    TrackPrompt,
)
from sam2_blocks.values import Hw, Image, Prompt, PromptSet, Rle, Tracks


@dataclass(frozen=True)
class Correction:
    """Where one object is; see `TrackSession.correct`."""

    tracker_id: int
    prompt: Prompt | Rle
    keep: bool


@dataclass(frozen=True)
class CheckedFrame:
    """What a session is to do.

    Attributes:
        image: the next frame; None where all else is about the one before.
        prompts: what to follow.
        tracker_ids: whom each is about.
        corrections: what to mend.
        removals: whom to forget.
    """

    image: Image | None
    prompts: tuple[Prompt | Rle, ...]
    tracker_ids: tuple[int | None, ...]
    corrections: tuple[Correction, ...]
    removals: tuple[int, ...]

    def count_new(self, known: Sequence[int]) -> int:
        """Count the objects that are to be followed beside those that are known."""
        return sum(one is None or one not in known for one in self.tracker_ids)


def check_frame(
    frame: TrackFrame,
    image: Image | None,
    *,
    image_hw: Hw | None,
    known: Sequence[int],
    field: str = "",
) -> CheckedFrame:
    """Check all that is said about a frame.

    Args:
        frame: as it was sent.
        image: its image, opened.
        image_hw: size of the frames before, if there are any.
        known: the objects that are followed.
        field: where the frame is in the request; messages begin with it.

    Raises:
        RequestError: if anything of it means nothing.
    """
    if image is None and image_hw is None:
        raise RequestError(f"{field}image: this session has no frame yet. Send one.")
    if image is not None and image_hw not in (None, image.hw):
        raise RequestError(
            f"{field}image: is {_shown(image.hw)}, but the frames before it are "
            f"{_shown(image_hw)}. Scale it, or begin another session."
        )
    hw = image.hw if image is not None else image_hw
    assert hw is not None
    _check_ids(frame, known, field)
    return CheckedFrame(
        image,
        tuple(_read_all(frame.prompts, hw, f"{field}prompts")),
        tuple(prompt.tracker_id for prompt in frame.prompts),
        tuple(
            Correction(one.tracker_id, read, one.keep)
            for one, read in zip(
                frame.corrections,
                _read_all(frame.corrections, hw, f"{field}corrections"),
                strict=True,
            )
        ),
        tuple(frame.removals),
    )


def apply_frame(session: TrackSession, wanted: CheckedFrame) -> Tracks:
    """Let a session take a frame, with the prompts, corrections and removals that came with it.

    Args:
        session: of the video.
        wanted: what `check_frame` let through; without an image it is about the last frame.

    Returns:
        All objects on the frame, as they are in the end.

    Raises:
        ValueError: if the session cannot; then it is as it was.
    """
    if wanted.image is None:  # what may be refused comes first
        tracks = session.prompt(wanted.prompts, wanted.tracker_ids)
        _remove(session, wanted.removals)
    else:
        _remove(session, wanted.removals)
        tracks = session.step(wanted.image, wanted.prompts, wanted.tracker_ids)
    for one in wanted.corrections:
        tracks = session.correct(one.tracker_id, one.prompt, keep=one.keep)
    return tracks.select(np.flatnonzero(~np.isin(tracks.tracker_id, wanted.removals)))


def to_tracked_rows(
    tracks: Tracks,
    mask_format: MaskFormat,
    *,
    tolerance_px: float = 0.0,
    form: PolygonForm = "centers",
) -> list[TrackedPrediction]:
    """Answer with the objects of a frame; their masks are those of the routes for images.

    Args:
        tracks: the objects.
        mask_format: ``json`` for polygons, ``rle`` for run lengths.
        tolerance_px: how far a polygon may be from the exact one.
        form: of polygons, see `to_polygon_rows`.
    """
    masks = tracks.prediction
    if mask_format == "rle":
        rows = to_rle_rows(masks)
    else:
        rows = to_polygon_rows(masks, tolerance_px, form)
    return [
        TrackedPrediction(
            **row.model_dump(), tracker_id=tracker_id, object_score=score, state=state
        )
        for row, tracker_id, score, state in zip(
            rows,
            tracks.tracker_id.tolist(),
            tracks.object_score.tolist(),
            tracks.state,
            strict=True,
        )
    ]


def _remove(session: TrackSession, tracker_ids: Sequence[int]) -> None:
    for tracker_id in tracker_ids:
        session.remove(tracker_id)


def _check_ids(frame: TrackFrame, known: Sequence[int], field: str) -> None:
    """Every object is named by one prompt at most, and is there where it has to be."""
    named = [one.tracker_id for one in frame.prompts if one.tracker_id is not None]
    twice = {one for one in named if named.count(one) > 1} | set(named) & set(frame.removals)
    if twice or len(set(frame.removals)) < len(frame.removals):
        shown = sorted(twice) or list(frame.removals)
        raise RequestError(f"{field}tracker_id: {shown} named more than once on one frame.")
    left = {*known, *named} - set(frame.removals)
    wrong = {
        "removals": [one for one in frame.removals if one not in known],
        "corrections": [one.tracker_id for one in frame.corrections if one.tracker_id not in left],
    }
    for name, ids in wrong.items():
        if ids:
            followed = ", ".join(map(str, known)) or "none"
            raise RequestError(
                f"{field}{name}: no object {ids[0]} is followed. Those that are: {followed}."
            )


def _read_all(prompts: Sequence[TrackPrompt], hw: Hw, field: str) -> Iterator[Prompt | Rle]:
    for index, prompt in enumerate(prompts):
        with _naming(f"{field}[{index}]"):
            yield _read(prompt, hw)


def _read(prompt: TrackPrompt, hw: Hw) -> Prompt | Rle:
    if prompt.mask is None:
        return check_prompts(PromptSet((prompt.to_prompt(),)), hw, warn=False).prompts[0]
    rle = coco_to_rle(prompt.mask)
    if rle.size != hw:
        raise ValueError(f"the mask is {_shown(rle.size)}, but the frame is {_shown(hw)}")
    return rle


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """Put the field before what is wrong with a prompt."""
    try:
        yield
    except ValueError as error:
        message = str(error).removeprefix("prompt 0").lstrip(": ")
        raise RequestError(f"{field}: {message}.") from error


def _shown(hw: Hw | None) -> str:
    assert hw is not None
    return f"{hw[1]}x{hw[0]}"
