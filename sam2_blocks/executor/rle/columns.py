"""The runs of many masks found together, for devices where launches cost more than pixels.

The columns of all crops stand side by side in one matrix, so that a hundred masks take as many
launches as one. The arithmetic is that of `upsample_crop`; whether it is also that of the device's
``F.interpolate``, bit for bit, depends on where its kernels fuse multiply and add. So the deviation
is measured once a device, and a mask with a pixel within `SAFETY` times that of the threshold is
left to be done again by ``F.interpolate`` itself: the guard band, which has no width where the two
are equal.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sam2_blocks.executor.device.transfer import upload
from sam2_blocks.executor.rle.upsample import CHECKED_SIZES, Crop, axis_weights, upsample_full
from sam2_blocks.values import Hw, Int64Array

# Working memory of one batch of columns, and how much of it a pixel takes: three float32, one
# distance to the threshold and flags.
BATCH_BYTES = 512 * 2**20
PIXEL_BYTES = 20
# Half the guard band, in units of the deviation measured.
SAFETY = 16.0


def find_column_runs(
    logits: Tensor, crops: Sequence[Crop], image_hw: Hw, threshold: float
) -> tuple[Int64Array, Int64Array, Int64Array, list[Crop]]:
    """Upsample, threshold and find the runs of all crops, column by column.

    Costs two waits for the device a batch of columns; nearly always there is one batch.

    Args:
        logits: float32, (N, h, w).
        crops: regions outside which nothing is above the threshold, at most one a mask, sorted.
        image_hw: size of the original picture in pixels.
        threshold: a pixel belongs to the mask where its logit is above.

    Returns:
        Where runs start and end in column-major pixels, and the masks they are of, sorted by mask
        and position; and the crops of masks with a pixel in the guard band, whose runs are absent.
    """
    columns_at_once = max(1, BATCH_BYTES // (PIXEL_BYTES * image_hw[0]))
    guard = SAFETY * deviation(logits.device, (logits.shape[1], logits.shape[2]))
    band = guard * logits.abs().amax((1, 2))  # (N,)
    in_band = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    found = [np.zeros((2, 0), np.int64)]
    for batch in _cut_into_batches(crops, columns_at_once):
        masks, xs = _list_columns(batch, logits.device)
        rows = min(crop.y0 for crop in batch), max(crop.y1 for crop in batch)
        values = interpolate_columns(logits, masks, xs, rows, image_hw)
        if guard > 0:
            close = (values - threshold).abs_() <= band[masks, None]
            in_band.index_add_(0, masks, close.any(1).long())
        column, row = _mark_edges(values > threshold).nonzero(as_tuple=True)
        positions = xs[column] * image_hw[0] + row + rows[0]
        found.append(torch.stack([masks[column], positions]).cpu().numpy())
    unsure = in_band.cpu().numpy() > 0 if guard > 0 else np.zeros(len(logits), bool)
    owners, toggles = np.concatenate(found, axis=1)
    sure = ~unsure[owners]
    owners, toggles = owners[sure], toggles[sure]
    return toggles[0::2], toggles[1::2], owners[0::2], [crop for crop in crops if unsure[crop.mask]]


def interpolate_columns(
    logits: Tensor, masks: Tensor, xs: Tensor, rows: tuple[int, int], image_hw: Hw
) -> Tensor:
    """Interpolate columns of masks: horizontally first, with fused multiply-add.

    Args:
        logits: float32, (N, h, w).
        masks: int64, (C,), the mask of each column.
        xs: int64, (C,), the column in pixels of the original image.
        rows: first row wanted, and one past the last.
        image_hw: size of the original picture in pixels.

    Returns:
        float32, (C, rows).
    """
    _, h, w = logits.shape
    columns = logits.transpose(1, 2).reshape(-1, h)  # (N * w, h): whole rows are fast to gather
    x = axis_weights(image_hw[1], w, logits.device)
    y = axis_weights(image_hw[0], h, logits.device).window(*rows)
    wide = columns.index_select(0, masks * w + x.upper[xs]).mul_(x.upper_weight[xs, None])
    wide.addcmul_(columns.index_select(0, masks * w + x.lower[xs]), x.lower_weight[xs, None])
    tall = wide.index_select(1, y.upper).mul_(y.upper_weight)
    return tall.addcmul_(wide.index_select(1, y.lower), y.lower_weight)


@functools.cache
def deviation(device: torch.device, low_res_hw: Hw) -> float:
    """Measure how far `interpolate_columns` is from ``F.interpolate`` on this device.

    It takes some milliseconds, once.

    Args:
        device: where masks are made.
        low_res_hw: size of the logits.

    Returns:
        The largest difference, as a share of the largest logit; 0.0 if all are equal bit for bit.
    """
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(1, *low_res_hw, generator=generator) * 10).to(device)
    worst = logits.new_zeros(())
    for height, width in CHECKED_SIZES:
        xs = torch.arange(width, device=device)
        ours = interpolate_columns(logits, torch.zeros_like(xs), xs, (0, height), (height, width))
        official = upsample_full(logits[0], Crop(0, 0, 0, width, height), (height, width))
        worst = torch.maximum(worst, (ours.t() - official).abs().amax())
    return float(worst / logits.abs().amax())


def _cut_into_batches(crops: Sequence[Crop], columns: int) -> Iterator[list[Crop]]:
    """Gather crops into batches of so many columns, cutting crops apart where one is full."""
    batch: list[Crop] = []
    room = columns
    for crop in crops:
        while crop.x1 - crop.x0 > room:
            cut = crop.x0 + room
            yield [*batch, crop._replace(x1=cut)]
            crop, batch, room = crop._replace(x0=cut), [], columns
        batch.append(crop)
        room -= crop.x1 - crop.x0
    if batch:
        yield batch


def _list_columns(crops: Sequence[Crop], device: torch.device) -> tuple[Tensor, Tensor]:
    """List the mask and the x of every column of these crops: int64, (C,) each."""
    masks = np.repeat([crop.mask for crop in crops], [crop.x1 - crop.x0 for crop in crops])
    xs = np.concatenate([np.arange(crop.x0, crop.x1) for crop in crops])
    columns = upload(np.stack([masks, xs]).astype(np.int64, copy=False), device)
    return columns[0], columns[1]


def _mark_edges(inside: Tensor) -> Tensor:
    """Mark where columns (C, rows) change, background lying around them: bool, (C, rows + 1)."""
    padded = F.pad(inside, (1, 1))
    return padded[:, 1:] != padded[:, :-1]
