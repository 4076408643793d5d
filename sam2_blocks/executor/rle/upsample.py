"""Bilinear upsampling of low-resolution logits, whole or in part, as ``F.interpolate`` does it.

`upsample_full` is the official way and the reference. `upsample_crop` repeats the arithmetic of
ATen on a CPU inside a region, bit for bit where `crops_are_exact`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sam2_blocks.values import Hw

# Heights and widths where restated interpolation is compared with ATen's, once a process.
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
        """Return the weights of the outputs from ``start`` to before ``stop``."""
        return AxisWeights(
            self.lower[start:stop],
            self.upper[start:stop],
            self.lower_weight[start:stop],
            self.upper_weight[start:stop],
        )


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
    x = axis_weights(width, w, logits.device).window(crop.x0, crop.x1)
    y = axis_weights(height, h, logits.device).window(crop.y0, crop.y1)
    top, bottom = int(y.lower[0]), int(y.upper[-1]) + 1
    left, right = int(x.lower[0]), int(x.upper[-1]) + 1
    columns = logits[top:bottom, left:right].t().contiguous()  # whole rows are fast to gather
    wide = columns.index_select(0, x.upper - left).mul_(x.upper_weight[:, None])
    wide.addcmul_(columns.index_select(0, x.lower - left), x.lower_weight[:, None])
    rows = wide.t().contiguous()
    tall = rows.index_select(0, y.upper - top).mul_(y.upper_weight[:, None])
    return tall.addcmul_(rows.index_select(0, y.lower - top), y.lower_weight[:, None])


def upsample_full(logits: Tensor, crop: Crop, image_hw: Hw) -> Tensor:
    """Interpolate one mask the official way, then crop it: the reference of `upsample_crop`.

    Its arguments, and what it returns, are those of `upsample_crop`; it makes a full-size array.
    """
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
def axis_weights(n_out: int, n_in: int, device: torch.device) -> AxisWeights:
    """Compute which inputs make each output along one axis, as ATen does: rounded once to float32.

    Args:
        n_out: outputs.
        n_in: inputs.
        device: where the tensors of the result are.

    Source: ATen ``UpSample.h: area_pixel_compute_source_index``.
    """
    scale = float(torch.tensor(n_in, dtype=torch.float32) / n_out)
    exact = scale * (torch.arange(n_out, dtype=torch.float64) + 0.5) - 0.5
    source = exact.float().clamp_(min=0)
    lower = source.long().clamp_(max=n_in - 1)
    upper_weight = (source - lower).clamp_(0, 1)
    weights = (lower, (lower + 1).clamp_(max=n_in - 1), 1 - upper_weight, upper_weight)
    return AxisWeights(*(tensor.to(device) for tensor in weights))
