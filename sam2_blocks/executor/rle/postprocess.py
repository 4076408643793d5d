"""Low-resolution logits to exact run lengths at original size, without full-size masks.

The official way upsamples every candidate to full size in float32 and copies it to the host. Only
the sign of the logits matters, and only where a low-resolution neighbour is positive, so we find
that region, upsample it alone, mark where a column enters and leaves the mask, and copy only
those marks. Equal to ``F.interpolate(logits, (H, W), mode="bilinear") > threshold`` bit for bit:
on a CPU the crop repeats the arithmetic of ATen, checked once a process (`crops_are_exact`); on
CUDA all masks go together and those too close to call again (`columns`); elsewhere one mask at a
time is upsampled by ``F.interpolate`` itself, then cropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sam2_blocks.executor.device.budget import ByteBudget
from sam2_blocks.executor.rle.columns import find_column_runs
from sam2_blocks.executor.rle.upsample import (
    Crop,
    axis_weights,
    crops_are_exact,
    upsample_crop,
    upsample_full,
)
from sam2_blocks.values import Hw, Int64Array, Rle

# Bytes of edge marks gathered before they cross to the host together.
EDGE_BYTES = 32 * 2**20
# What the threads of a CPU hold together while they upsample: the largest mask of a batch takes up
# to three float32 a pixel, the marks of all masks one byte.
CPU_BUDGET = ByteBudget(512 * 2**20)
PIXEL_BYTES = 12
# For tiny outputs (H + W <= 128) ATen has another kernel, and there is nothing to save anyway.
SMALLEST_CROPPED = 256  # H + W


def logits_to_rles(
    logits: Tensor, image_hw: Hw, *, threshold: float = 0.0
) -> tuple[list[Rle], Int64Array]:
    """Make exact run lengths of low-resolution logits: upsample, threshold, encode.

    No array of N full-size masks is made: each mask is upsampled inside its own bounds, in batches
    that fit a budget.

    Args:
        logits: float32, (N, h, w), on any device.
        image_hw: size of the original picture in pixels.
        threshold: a pixel belongs to the mask where its logit is above.

    Returns:
        N masks at original size, and their tight boxes int64 (N, 4), inclusive xyxy.

    Example:
        >>> logits = torch.full((1, 4, 4), -1.0)
        >>> logits[:, :, 2:] = 1.0  # the right half
        >>> rles, boxes = logits_to_rles(logits, (8, 8))
        >>> boxes.tolist(), int(rles[0].counts[1::2].sum())
        ([[4, 0, 7, 7]], 32)
    """
    height, width = image_hw
    rles = [Rle((height, width), np.array([height * width], np.int64))] * len(logits)
    boxes = np.zeros((len(logits), 4), np.int64)
    crops = find_crops(logits, image_hw, threshold=threshold)
    for starts, ends, owners in _find_runs(logits, crops, image_hw, threshold):
        filled, firsts = np.unique(owners, return_index=True)
        boxes[filled] = _runs_to_boxes(starts, ends, firsts, height)
        for index, run in zip(filled, _split_runs(starts, ends, firsts), strict=True):
            rles[index] = Rle((height, width), _runs_to_counts(*run, height * width))
    return rles, boxes


def find_crops(logits: Tensor, image_hw: Hw, *, threshold: float = 0.0) -> list[Crop]:
    """Bound the region of each mask where any interpolated logit can exceed the threshold.

    It costs one transfer to the host.

    Args:
        logits: float32, (N, h, w).
        image_hw: size of the original picture in pixels.
        threshold: of logits.

    Returns:
        At most one crop a mask, in pixels of the picture; masks that are surely empty have none.
    """
    height, width = image_hw
    # Weights sum to one but for rounding, so a threshold other than 0 needs a little slack.
    floor = threshold - 1e-4 * abs(threshold)
    x0, x1 = _support(logits.amax(1) > floor, width)
    y0, y1 = _support(logits.amax(2) > floor, height)
    bounds = torch.stack([x0, y0, x1, y1], 1).tolist()
    return [Crop(i, *bound) for i, bound in enumerate(bounds) if bound[2] > 0 and bound[3] > 0]


def _support(positive: Tensor, n_out: int) -> tuple[Tensor, Tensor]:
    """Return first and one past the last output with a positive neighbour; (n_out, 0) if none.

    One output more on each side, in case a device rounds source coordinates to the next input.

    Args:
        positive: bool, (N, n_in), whether any input of that row or column is positive.
        n_out: outputs along this axis.
    """
    axis = axis_weights(n_out, positive.shape[1], positive.device)
    reached = positive[:, axis.lower] | positive[:, axis.upper]  # (N, n_out)
    outputs = torch.arange(n_out, device=positive.device)
    first = torch.where(reached, outputs - 1, n_out).amin(1)
    stop = torch.where(reached, outputs + 2, 0).amax(1)
    return first.clamp(min=0), stop.clamp(max=n_out)


def _batch_by_bytes(crops: Sequence[Crop]) -> Iterator[list[Crop]]:
    batch: list[Crop] = []
    nbytes = 0
    for crop in crops:
        if batch and nbytes + crop.nbytes > EDGE_BYTES:
            yield batch
            batch, nbytes = [], 0
        batch.append(crop)
        nbytes += crop.nbytes
    if batch:
        yield batch


def _find_runs(
    logits: Tensor, crops: Sequence[Crop], image_hw: Hw, threshold: float
) -> Iterator[tuple[Int64Array, Int64Array, Int64Array]]:
    """Yield where runs of columns start and end (column-major pixels), and whose they are.

    A run never spans two columns here; runs are sorted by mask, then by position, and those of
    one mask come together.
    """
    if _is_bound_by_launches(logits.device):
        *runs, unsure = find_column_runs(logits, crops, image_hw, threshold)
        yield runs[0], runs[1], runs[2]
        crops = unsure
    for batch in _batch_by_bytes(crops):
        yield _find_runs_one_by_one(logits, batch, image_hw, threshold)


def _is_bound_by_launches(device: torch.device) -> bool:
    return device.type == "cuda"


def _find_runs_one_by_one(
    logits: Tensor, crops: Sequence[Crop], image_hw: Hw, threshold: float
) -> tuple[Int64Array, Int64Array, Int64Array]:
    sizes = [crop.nbytes for crop in crops]
    if logits.device.type != "cpu":
        return _encode_batch(logits, crops, sizes, image_hw, threshold)
    with CPU_BUDGET.taken(sum(sizes) + PIXEL_BYTES * max(sizes)):
        return _encode_batch(logits, crops, sizes, image_hw, threshold)


def _encode_batch(
    logits: Tensor, crops: Sequence[Crop], sizes: Sequence[int], image_hw: Hw, threshold: float
) -> tuple[Int64Array, Int64Array, Int64Array]:
    edges = torch.empty(sum(sizes), dtype=torch.bool, device=logits.device)
    upsample = upsample_crop if _may_crop(logits, image_hw) else upsample_full
    for crop, marks in zip(crops, torch.split(edges, list(sizes)), strict=True):
        mask = upsample(logits[crop.mask], crop, image_hw) > threshold
        _mark_edges(mask, marks.view(-1, mask.shape[1]))
    toggles, owners = _toggles_to_positions(_find_true(edges), crops, image_hw)
    return toggles[0::2], toggles[1::2], owners[0::2]


def _may_crop(logits: Tensor, image_hw: Hw) -> bool:
    if logits.device.type != "cpu" or sum(image_hw) < SMALLEST_CROPPED:
        return False
    return crops_are_exact((logits.shape[1], logits.shape[2]))


def _mark_edges(mask: Tensor, marks: Tensor) -> None:
    """Write where columns of a mask (h, w) change, background lying around it, into (h + 1, w)."""
    marks[0] = mask[0]
    torch.ne(mask[1:], mask[:-1], out=marks[1:-1])
    marks[-1] = mask[-1]


def _find_true(flags: Tensor) -> Int64Array:
    if flags.device.type == "cpu":
        return np.flatnonzero(flags.numpy())
    return flags.nonzero()[:, 0].cpu().numpy()


def _toggles_to_positions(
    marks: Int64Array, crops: Sequence[Crop], image_hw: Hw
) -> tuple[Int64Array, Int64Array]:
    """Turn indices of edge marks into sorted column-major positions and the masks they are of."""
    height, width = image_hw
    table = np.array(crops, np.int64)
    offsets = np.cumsum([0, *(crop.nbytes for crop in crops)])
    places = np.searchsorted(offsets, marks, side="right") - 1
    owners, x0, y0, x1, _ = table[places].T
    row, column = np.divmod(marks - offsets[places], x1 - x0)
    stride = height * width + 1
    order = np.sort(owners * stride + (column + x0) * height + row + y0)
    owners, positions = np.divmod(order, stride)
    return positions, owners


def _runs_to_boxes(
    starts: Int64Array, ends: Int64Array, firsts: Int64Array, height: int
) -> Int64Array:
    """Bound the runs of each mask: int64 (masks, 4), inclusive xyxy."""
    if not len(firsts):
        return np.zeros((0, 4), np.int64)
    first_x, first_y = np.divmod(starts, height)
    last_x, last_y = np.divmod(ends - 1, height)
    return np.stack(
        [
            np.minimum.reduceat(first_x, firsts),
            np.minimum.reduceat(first_y, firsts),
            np.maximum.reduceat(last_x, firsts),
            np.maximum.reduceat(last_y, firsts),
        ],
        axis=1,
    )


def _split_runs(
    starts: Int64Array, ends: Int64Array, firsts: Int64Array
) -> Iterator[tuple[Int64Array, Int64Array]]:
    for first, last in itertools.pairwise([*firsts, len(starts)]):
        yield starts[first:last], ends[first:last]


def _runs_to_counts(starts: Int64Array, ends: Int64Array, total: int) -> Int64Array:
    """Join runs that touch across columns and return COCO run lengths."""
    apart = starts[1:] != ends[:-1]
    toggles = np.empty(2 * (1 + np.count_nonzero(apart)), np.int64)
    toggles[0], toggles[2::2] = starts[0], starts[1:][apart]
    toggles[-1], toggles[1:-1:2] = ends[-1], ends[:-1][apart]
    counts = np.diff(toggles, prepend=0, append=total)
    return counts[:-1] if ends[-1] == total else counts
