"""The masks of one picture: small in memory, an array to whoever treats them as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray
from supervision.detection.compact_mask import CompactMask

from sam2_blocks.masks.many import tight_crops
from sam2_blocks.masks.rle import mask_to_rle, merge_empty_runs, rle_paste
from sam2_blocks.values import Hw, Rle

MOST_PIXELS = 2**31 - 1
"""In one box, since supervision counts runs in 32 bits."""


class MaskStack(CompactMask, NDArrayOperatorsMixin):
    """Masks as run lengths of their tight boxes, with what people do to a bool array (N, H, W).

    Picking rows, moving, resizing and areas stay compact, as in `CompactMask`. Whatever else an
    array has (``.any()``, ``.astype()``, ``~masks``, ``masks[:, y0:y1, x0:x1]``, ``np.sum``, …) is
    answered by a full array that is made for it and dropped. Assigning to a part encodes anew.
    ``==`` compares the whole and gives one bool, as in `CompactMask`.
    """

    __slots__ = ()

    @classmethod
    def from_rles(cls, rles: Sequence[Rle], image_hw: Hw) -> MaskStack:
        """Keep each mask as the run lengths of its tight box; an empty mask is one clear pixel.

        Args:
            rles: of one picture.
            image_hw: its size.

        Raises:
            ValueError: if a mask has another size than ``image_hw``, or a box 2^31 pixels.
        """
        for index, rle in enumerate(rles):
            if rle.size != tuple(image_hw):
                raise ValueError(f"mask {index} has size {rle.size}, the others {tuple(image_hw)}")
        crops = tight_crops(rles, image_hw)
        boxes = crops.boxes_xyxy
        sizes_wh = boxes[:, 2:] - boxes[:, :2] + 1
        if sizes_wh.prod(axis=1).max(initial=0) > MOST_PIXELS:
            raise ValueError(f"a mask's box has more than {MOST_PIXELS} pixels; scale it down")
        shapes, corners = sizes_wh[:, ::-1].astype(np.int32), boxes[:, :2].astype(np.int32)
        return cls(crops.counts, shapes, corners, (image_hw[0], image_hw[1]))

    @classmethod
    def of(cls, masks: CompactMask | NDArray[Any]) -> MaskStack:
        """Take masks of any form, (N, H, W); what is not zero is inside."""
        if isinstance(masks, cls):
            return masks
        if isinstance(masks, CompactMask):
            return cls(masks._rles, masks._crop_shapes, masks._offsets, masks._image_shape)
        height, width = masks.shape[1:]
        cut = [_tight_crop(np.asarray(mask, bool)) for mask in masks]
        return cls(
            [mask_to_rle(crop).counts.astype(np.int32) for crop, _ in cut],
            np.array([crop.shape for crop, _ in cut], np.int32).reshape(-1, 2),
            np.array([corner for _, corner in cut], np.int32).reshape(-1, 2),
            (height, width),
        )

    def to_rles(self) -> tuple[Rle, ...]:
        """Run lengths at the picture's size, without a full-size array."""
        return tuple(
            rle_paste(
                Rle((int(height), int(width)), merge_empty_runs(counts.astype(np.int64))),
                (int(x), int(y)),
                self._image_shape,
            )
            for counts, (height, width), (x, y) in zip(
                self._rles, self._crop_shapes, self._offsets, strict=True
            )
        )

    # --- compact ------------------------------------------------------------------------------

    def copy(self, order: str = "C") -> MaskStack:
        """Masks of their own; ``order`` is for those who pass what an array would take."""
        return cast(MaskStack, self[:])

    def with_offset(self, dx: int, dy: int, new_image_shape: Hw) -> MaskStack:
        """See `CompactMask.with_offset`."""
        return MaskStack.of(super().with_offset(dx, dy, new_image_shape))

    def resize(self, new_image_shape: Hw) -> MaskStack:
        """See `CompactMask.resize`."""
        return MaskStack.of(super().resize(new_image_shape))

    def repack(self) -> MaskStack:
        """See `CompactMask.repack`."""
        return MaskStack.of(super().repack())

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, **options: Any) -> Any:
        """Count pixels; per mask, ``axis=(1, 2)``, without a full array."""
        if axis in ((1, 2), (-2, -1)) and dtype is None and out is None and not options:
            return self.area
        return self.to_dense().sum(axis=axis, dtype=dtype, out=out, **options)

    # --- an array -----------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """Three, always."""
        return 3

    @property
    def size(self) -> int:
        """Pixels of all masks."""
        return int(np.prod(self.shape))

    def __getitem__(self, index: Any) -> Any:
        """Rows as masks, one row as a bool array (H, W), anything else as the array gives it."""
        if isinstance(index, tuple) and index and isinstance(index[0], int | np.integer | slice):
            row, rest = index[0], index[1:]
            if isinstance(row, slice):  # only the rows asked for become a full array
                within = (slice(None), *rest)
                return super().__getitem__(row).to_dense()[within]
            return super().__getitem__(row)[rest]
        if not _picks_rows(index):
            return self.to_dense()[index]
        picked = super().__getitem__(index)
        return MaskStack.of(picked) if isinstance(picked, CompactMask) else picked

    def __setitem__(self, index: Any, value: Any) -> None:
        pixels = self.to_dense()
        pixels[index] = value
        self._become(pixels)

    def __getattr__(self, name: str) -> Any:
        """What else an array has."""
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.to_dense(), name)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        given = [x.to_dense() if isinstance(x, CompactMask) else x for x in inputs]
        targets = options.pop("out", ())
        made = getattr(ufunc, method)(*given, **options)
        for target in targets[:1]:
            if isinstance(target, MaskStack):  # masks |= others
                target._become(np.asarray(made, bool))
            else:
                target[...] = made
            return target
        return made

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return f"MaskStack(shape={self.shape})"

    def _become(self, pixels: NDArray[np.bool_]) -> None:
        made = MaskStack.of(pixels)
        self._rles, self._crop_shapes, self._offsets = made._rles, made._crop_shapes, made._offsets


def _tight_crop(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The part of a mask that has pixels, or one clear pixel, and its first column and row."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return np.zeros((1, 1), bool), (0, 0)
    mask = mask[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(mask.any(axis=0))
    return mask[:, columns[0] : columns[-1] + 1], (int(columns[0]), int(rows[0]))


def _picks_rows(index: Any) -> bool:
    """Whether an index is one of the first axis alone."""
    if isinstance(index, int | np.integer | slice):
        return not isinstance(index, bool)
    if isinstance(index, list | np.ndarray):
        picks = np.asarray(index)
        return picks.ndim == 1 and (picks.dtype.kind in "biu" or not picks.size)
    return False
