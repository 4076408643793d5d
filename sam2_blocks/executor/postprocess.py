"""Low-resolution logits to exact run lengths at original size, without full-size masks.

The official way upsamples every candidate to full size in float32 and copies it to the host. Only
the sign of the logits matters, and only where a low-resolution neighbour is positive, so we find
that region, upsample it alone, mark where a column enters and leaves the mask, and copy only
those marks. Equal to ``F.interpolate(logits, (H, W), mode="bilinear") > threshold`` bit for bit:
on a CPU the crop repeats the arithmetic of ATen, checked once a process (`crops_are_exact`);
elsewhere one mask at a time is upsampled by ``F.interpolate`` itself, then cropped.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sam2_blocks.values import Hw, Int64Array, Rle

# Bytes of edge marks gathered before they cross to the host together.
EDGE_BYTES = 32 * 2**20
# For tiny outputs (H + W <= 128) ATen has another kernel, and there is nothing to save anyway.
SMALLEST_CROPPED = 256  # H + W
CHECKED_SIZES = ((480, 640), (853, 1279), (61, 1920), (1080, 97), (256, 256), (200, 56))


class Crop(NamedTuple):
    """The region of one mask that can be positive, in pixels of the original image.

    Attributes:
        mask: which mask.
        x0: first column.
        y0: first row.
        x1: one past the last column.
        y1: one past the last row.
    """

    mask: int
    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def nbytes(self) -> int:
        """Bytes of its edge marks: one row more than pixels."""
        return (self.y1 - self.y0 + 1) * (self.x1 - self.x0)


@dataclass(frozen=True, eq=False)
class AxisWeights:
    """Bilinear interpolation along one axis: out[i] = in[lower[i]] * wl[i] + in[upper[i]] * wu[i].

    Attributes:
        lower: int64, (n_out,).
        upper: int64, (n_out,).
        lower_weight: float32, (n_out,).
        upper_weight: float32, (n_out,).
    """

    lower: Tensor
    upper: Tensor
    lower_weight: Tensor
    upper_weight: Tensor

    def window(self, start: int, stop: int) -> AxisWeights:
        """Return the weights of some consecutive outputs."""
        return AxisWeights(
            self.lower[start:stop],
            self.upper[start:stop],
            self.lower_weight[start:stop],
            self.upper_weight[start:stop],
        )


def logits_to_rles(
    logits: Tensor, image_hw: Hw, *, threshold: float = 0.0
) -> tuple[list[Rle], Int64Array]:
    """Upsample, threshold and run-length encode.

    Args:
        logits: float32, (N, h, w), on any device.
        image_hw: size of the original picture in pixels.
        threshold: a pixel belongs to the mask where its logit is above.

    Returns:
        N masks at original size, and their tight boxes int64 (N, 4), inclusive xyxy.
    """
    height, width = image_hw
    rles = [Rle((height, width), np.array([height * width], np.int64))] * len(logits)
    boxes = np.zeros((len(logits), 4), np.int64)
    for crops in _batch_by_bytes(find_crops(logits, image_hw, threshold=threshold)):
        starts, ends, owners = _find_runs(logits, crops, image_hw, threshold)
        filled, firsts = np.unique(owners, return_index=True)
        indices = np.array([crops[owner].mask for owner in filled], np.int64)
        boxes[indices] = _runs_to_boxes(starts, ends, firsts, height)
        for index, run in zip(indices, _split_runs(starts, ends, firsts), strict=True):
            rles[index] = Rle((height, width), _runs_to_counts(*run, height * width))
    return rles, boxes


def find_crops(logits: Tensor, image_hw: Hw, *, threshold: float = 0.0) -> list[Crop]:
    """Bound the region of each mask where any interpolated logit can exceed the threshold.

    Masks that are surely empty have no crop. Costs one transfer to the host.
    """
    height, width = image_hw
    # Weights sum to one but for rounding, so a threshold other than 0 needs a little slack.
    floor = threshold - 1e-4 * abs(threshold)
    x0, x1 = _support(logits.amax(1) > floor, width)
    y0, y1 = _support(logits.amax(2) > floor, height)
    bounds = torch.stack([x0, y0, x1, y1], 1).tolist()
    return [Crop(i, *bound) for i, bound in enumerate(bounds) if bound[2] > 0 and bound[3] > 0]


def upsample_crop(logits: Tensor, crop: Crop, image_hw: Hw) -> Tensor:
    """Interpolate one mask inside a crop only: horizontally first, with fused multiply-add.

    Args:
        logits: float32, (h, w), on the CPU.
        crop: the region wanted.
        image_hw: size of the original picture in pixels.

    Returns:
        float32, (crop height, crop width).

    Source: ATen ``UpSampleKernel.cpp``, generic bilinear kernel.
    """
    (height, width), (h, w) = image_hw, logits.shape
    x = _axis_weights(width, w, logits.device).window(crop.x0, crop.x1)
    y = _axis_weights(height, h, logits.device).window(crop.y0, crop.y1)
    top, bottom = int(y.lower[0]), int(y.upper[-1]) + 1
    left, right = int(x.lower[0]), int(x.upper[-1]) + 1
    columns = logits[top:bottom, left:right].t().contiguous()  # whole rows are fast to gather
    wide = columns.index_select(0, x.upper - left).mul_(x.upper_weight[:, None])
    wide.addcmul_(columns.index_select(0, x.lower - left), x.lower_weight[:, None])
    rows = wide.t().contiguous()
    tall = rows.index_select(0, y.upper - top).mul_(y.upper_weight[:, None])
    return tall.addcmul_(rows.index_select(0, y.lower - top), y.lower_weight[:, None])


def upsample_full(logits: Tensor, crop: Crop, image_hw: Hw) -> Tensor:
    """Interpolate one mask the official way, then crop it: the reference of `upsample_crop`."""
    full = F.interpolate(logits[None, None], image_hw, mode="bilinear", align_corners=False)
    return full[0, 0, crop.y0 : crop.y1, crop.x0 : crop.x1]


@functools.cache
def crops_are_exact(low_res_hw: Hw) -> bool:
    """Say whether `upsample_crop` equals ``F.interpolate`` bit for bit on this machine's CPU.

    It does where ATen uses fused multiply-add (AVX2, AVX-512). Takes some milliseconds, once.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(low_res_hw, generator=generator) * 10
    for height, width in CHECKED_SIZES:
        whole = Crop(0, 0, 0, width, height)
        hw = height, width
        if not torch.equal(upsample_crop(logits, whole, hw), upsample_full(logits, whole, hw)):
            return False
    return True


@functools.lru_cache(maxsize=64)
def _axis_weights(n_out: int, n_in: int, device: torch.device) -> AxisWeights:
    """Compute source indices as ATen does: in float32, as if rounded once.

    Source: ATen ``UpSample.h: area_pixel_compute_source_index``.
    """
    scale = float(torch.tensor(n_in, dtype=torch.float32) / n_out)
    exact = scale * (torch.arange(n_out, dtype=torch.float64) + 0.5) - 0.5
    source = exact.float().clamp_(min=0)
    lower = source.long().clamp_(max=n_in - 1)
    upper_weight = (source - lower).clamp_(0, 1)
    weights = (lower, (lower + 1).clamp_(max=n_in - 1), 1 - upper_weight, upper_weight)
    return AxisWeights(*(tensor.to(device) for tensor in weights))


def _support(positive: Tensor, n_out: int) -> tuple[Tensor, Tensor]:
    """Return first and one past the last output with a positive neighbour; (n_out, 0) if none.

    One output more on each side, in case a device rounds source coordinates to the next input.

    Args:
        positive: bool, (N, n_in), whether any input of that row or column is positive.
        n_out: outputs along this axis.
    """
    axis = _axis_weights(n_out, positive.shape[1], positive.device)
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
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return where runs of columns start and end (column-major pixels), and whose they are.

    A run never spans two columns here; runs are sorted by crop, then by position.
    """
    sizes = [crop.nbytes for crop in crops]
    edges = torch.empty(sum(sizes), dtype=torch.bool, device=logits.device)
    upsample = upsample_crop if _may_crop(logits, image_hw) else upsample_full
    for crop, marks in zip(crops, torch.split(edges, sizes), strict=True):
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
    """Turn indices of edge marks into sorted column-major positions and the crops they are in."""
    height, width = image_hw
    table = np.array(crops, np.int64)
    offsets = np.cumsum([0, *(crop.nbytes for crop in crops)])
    owners = np.searchsorted(offsets, marks, side="right") - 1
    _, x0, y0, x1, _ = table[owners].T
    row, column = np.divmod(marks - offsets[owners], x1 - x0)
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
