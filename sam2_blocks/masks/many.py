"""Many masks of one picture at once, in a few passes over arrays.

What is done here is what `rle` does mask by mask, which is the reference: the same boxes and the
same run lengths. The masks are laid side by side, as one wide picture: in it mask ``i`` has the
columns from ``i * W`` on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.values import Hw, Int64Array, Rle

MASKS_AT_ONCE = 256
"""Bounds what is held at once: a few numbers for each column of each run."""


class TightCrops(NamedTuple):
    """Masks cut out by their tight boxes.

    Attributes:
        boxes_xyxy: int64, (N, 4), inclusive pixel indices; zeros for an empty mask.
        counts: N run lengths, int32, of the pixels in these boxes, as of `Rle`.
    """

    boxes_xyxy: Int64Array
    counts: list[NDArray[np.int32]]


class _Runs(NamedTuple):
    """Foreground runs of masks side by side, in order: of which mask, and where in all pixels."""

    mask: Int64Array
    start: Int64Array
    stop: Int64Array


def tight_crops(rles: Sequence[Rle], image_hw: Hw) -> TightCrops:
    """Find the tight box of each mask and cut it out.

    Args:
        rles: masks of one picture.
        image_hw: its size.
    """
    parts = [
        _tight_crops(rles[start : start + MASKS_AT_ONCE], image_hw)
        for start in range(0, len(rles), MASKS_AT_ONCE)
    ]
    boxes = [np.zeros((0, 4), np.int64), *(part.boxes_xyxy for part in parts)]
    return TightCrops(np.concatenate(boxes), [one for part in parts for one in part.counts])


def _tight_crops(rles: Sequence[Rle], image_hw: Hw) -> TightCrops:
    runs = _runs(rles)
    boxes = _boxes(runs, len(rles), image_hw)
    cropped = _crop(_cut_at_columns(runs, image_hw[0]), boxes, image_hw)
    return TightCrops(boxes, _counts(cropped, boxes))


def _runs(rles: Sequence[Rle]) -> _Runs:
    counts = np.concatenate([rle.counts for rle in rles]) if rles else np.zeros(0, np.int64)
    lengths = np.array([len(rle.counts) for rle in rles], np.int64)
    mask = np.repeat(np.arange(len(rles)), lengths)
    place = np.arange(len(counts)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    stop = np.cumsum(counts, dtype=np.int64)
    is_inside = place % 2 == 1  # every mask begins with a run of background
    return _Runs(mask[is_inside], (stop - counts)[is_inside], stop[is_inside])


def _boxes(runs: _Runs, count: int, image_hw: Hw) -> Int64Array:
    height, width = image_hw
    boxes = np.zeros((count, 4), np.int64)
    if not len(runs.mask):
        return boxes
    (x_start, y_start), (x_last, y_last) = (
        np.divmod(pixel, height) for pixel in (runs.start, runs.stop - 1)
    )
    first = np.flatnonzero(np.diff(runs.mask, prepend=-1))  # the first run of each mask
    there = runs.mask[first]
    # A run that goes on into the next column touches the bottom and the top of the picture.
    turns = np.logical_or.reduceat(x_start != x_last, first)
    boxes[there, 0] = x_start[first] - there * width
    boxes[there, 1] = np.where(turns, 0, np.minimum.reduceat(y_start, first))
    boxes[there, 2] = np.maximum.reduceat(x_last, first) - there * width
    boxes[there, 3] = np.where(turns, height - 1, np.maximum.reduceat(y_last, first))
    return boxes


def _cut_at_columns(runs: _Runs, height: int) -> _Runs:
    """Cut runs where a column ends."""
    x_first, x_last = runs.start // height, (runs.stop - 1) // height
    columns = x_last - x_first + 1
    if (columns == 1).all():
        return runs
    before = np.cumsum(columns) - columns
    top = (np.arange(columns.sum()) + np.repeat(x_first - before, columns)) * height
    return _Runs(
        np.repeat(runs.mask, columns),
        np.maximum(np.repeat(runs.start, columns), top),
        np.minimum(np.repeat(runs.stop, columns), top + height),
    )


def _crop(spans: _Runs, boxes: Int64Array, image_hw: Hw) -> _Runs:
    """Count pixels in the box of each mask, and join spans that touch there."""
    height, width = image_hw
    mask, length = spans.mask, spans.stop - spans.start
    x, y = np.divmod(spans.start, height)
    x_min, y_min, _, y_max = boxes[mask].T
    start = (x - mask * width - x_min) * (y_max - y_min + 1) + y - y_min
    stop = start + length
    goes_on = (start[1:] == stop[:-1]) & (mask[1:] == mask[:-1])
    begins, ends = (np.concatenate(pair) for pair in (([True], ~goes_on), (~goes_on, [True])))
    if not len(mask):
        begins = ends = np.zeros(0, bool)
    return _Runs(mask[begins], start[begins], stop[ends])


def _counts(runs: _Runs, boxes: Int64Array) -> list[NDArray[np.int32]]:
    """Run lengths of each mask in its box: what lies before each run, the run, and what is left."""
    mask, start, stop = runs
    of_mask = np.bincount(mask, minlength=len(boxes))
    firsts = np.cumsum(of_mask) - of_mask
    before = np.concatenate(([0], stop[:-1]))[: len(mask)]
    before[firsts[of_mask > 0]] = 0
    left = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    left[of_mask > 0] -= stop[(firsts + of_mask - 1)[of_mask > 0]]
    lengths = 2 * of_mask + (left > 0)
    ends = np.cumsum(lengths)
    made: NDArray[Any] = np.empty(int(lengths.sum()), np.int32)
    place = np.arange(len(mask)) * 2 + (ends - lengths - 2 * firsts)[mask]
    made[place], made[place + 1] = start - before, stop - start
    made[ends[left > 0] - 1] = left[left > 0]
    return np.split(made, ends[:-1]) if len(ends) else []
