"""Masks of everything in a picture and in overlapping crops of it, for what is small in it.

Every crop is a picture of its own: it fills the encoder's square and has its own grid of points.
Masks that a crop cuts off are dropped, the others are moved into the picture as run lengths, and of
masks found in several crops that of the smallest stays.

The masks, and their order, are those of the official generator with the same ``crop_`` settings.

Source: sam2 ``automatic_mask_generator.py: _generate_masks, _process_crop``, ``utils/amg.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

from sam2_blocks.executors import Executor, MaskProposer, require
from sam2_blocks.masks.boxes import suppress_boxes
from sam2_blocks.masks.rle import paste_prediction
from sam2_blocks.options import AutomaticSettings, CropSettings
from sam2_blocks.strategies.automatic import (
    concatenate_masks,
    join_masks,
    propose_batches,
)
from sam2_blocks.values import AutomaticMasks, Hw, Image, Int64Array

CROPS_PER_BATCH = 8
MOST_LAYERS = 8  # the last has 65,536 crops
NEAR_PX = 20  # a mask this close to the edge of its crop counts as cut off


class Window(NamedTuple):
    """A part of a picture.

    Attributes:
        x_start: first column.
        y_start: first row.
        x_stop: first column after it.
        y_stop: first row after it.
        layer: 0 for the whole picture, i for one of 2^i by 2^i parts.
    """

    x_start: int
    y_start: int
    x_stop: int
    y_stop: int
    layer: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.x_stop - self.x_start) * (self.y_stop - self.y_start)

    def cut(self, image: Image) -> Image:
        """Return the part of a picture as a picture."""
        pixels = image.pixels[self.y_start : self.y_stop, self.x_start : self.x_stop]
        return replace(image, pixels=np.ascontiguousarray(pixels))


def generate_masks_in_crops(
    executor: Executor,
    image: Image,
    settings: AutomaticSettings | None = None,
    crops: CropSettings | None = None,
) -> AutomaticMasks:
    """Find the masks of everything in a picture, also in crops of it.

    With n layers this takes 1 + 4 + … + 4^n times as long as `generate_masks`, less if crops have
    fewer points.

    Args:
        executor: what encodes and decodes.
        image: the picture.
        settings: grid and thresholds, for each crop.
        crops: how to cut; one layer, 2 by 2 crops, if not given.

    Returns:
        The masks, without logits: those found in the smallest crops first, and of one size those
        with the highest predicted IoU of their crop.

    Raises:
        ModelError: if the executor cannot segment without prompts.
        ValueError: if a setting is out of its range, a layer would have no points, or crops overlap
            by all their length.

    Example:
        >>> from sam2_blocks.testing import FakeExecutor, sample_image
        >>> image = sample_image()
        >>> found = generate_masks_in_crops(FakeExecutor(), image, AutomaticSettings(4))
        >>> found.prediction.image_hw == image.hw
        True
    """
    settings, crops = settings or AutomaticSettings(), crops or CropSettings(crop_n_layers=1)
    _check_ranges(crops)
    proposer = require(executor, MaskProposer)
    grids = [_settings_of_layer(settings, crops, n) for n in range(crops.crop_n_layers + 1)]
    places = list(crop_places(image.hw, crops))
    found = []
    for start in range(0, len(places), CROPS_PER_BATCH):
        batch = places[start : start + CROPS_PER_BATCH]
        for crop, embedding in zip(
            batch, executor.embed([crop.cut(image) for crop in batch]), strict=True
        ):
            proposed = propose_batches(proposer, embedding, grids[crop.layer])
            whole = [_drop_cut_off(masks, crop, image.hw) for masks in proposed]
            found.append(_paste(join_masks(whole, settings), crop, image.hw))
    together = concatenate_masks(found)
    if len(places) == 1:
        return together
    areas = np.array([crop.area for crop in places], np.float32)
    smallness = np.repeat(np.reciprocal(areas), [len(masks) for masks in found])
    boxes_xyxy = together.prediction.mask_box_xyxy
    return together.select(
        suppress_boxes(boxes_xyxy, smallness, iou_threshold=crops.crop_nms_thresh)
    )


def crop_places(image_hw: Hw, crops: CropSettings) -> Iterator[Window]:
    """Lay crops over a picture.

    Args:
        image_hw: size of the picture in pixels.
        crops: how many layers, and how much crops overlap.

    Yields:
        The whole picture first, then crops layer by layer, column by column.

    Raises:
        ValueError: if the overlap is not a share of the picture's shorter side.

    Source: sam2 ``utils/amg.py: generate_crop_boxes``.
    """
    if not 0 <= crops.crop_overlap_ratio < 1:
        raise ValueError(
            f"crop_overlap_ratio must be at least 0 and below 1, got {crops.crop_overlap_ratio}"
        )
    height, width = image_hw
    yield Window(0, 0, width, height, 0)
    for layer in range(1, crops.crop_n_layers + 1):
        count = 2**layer
        overlap = int(crops.crop_overlap_ratio * min(image_hw) * (2 / count))
        across, down = (
            math.ceil((overlap * (count - 1) + length) / count) for length in (width, height)
        )
        for column, row in product(range(count), repeat=2):
            x, y = column * (across - overlap), row * (down - overlap)
            crop = Window(x, y, min(x + across, width), min(y + down, height), layer)
            if x < width and y < height:  # a picture of a few pixels has no more crops
                yield crop


def _check_ranges(crops: CropSettings) -> None:
    if not 0 <= crops.crop_n_layers <= MOST_LAYERS:
        raise ValueError(f"crop_n_layers wants 0 to {MOST_LAYERS}, got {crops.crop_n_layers}")
    if not 0 <= crops.crop_nms_thresh <= 1:
        raise ValueError(f"crop_nms_thresh wants 0 to 1, got {crops.crop_nms_thresh}")
    if not crops.crop_n_points_downscale_factor >= 1:
        raise ValueError(
            "crop_n_points_downscale_factor wants 1 or more, got "
            f"{crops.crop_n_points_downscale_factor}"
        )


def _settings_of_layer(
    settings: AutomaticSettings, crops: CropSettings, layer: int
) -> AutomaticSettings:
    points = int(settings.points_per_side / crops.crop_n_points_downscale_factor**layer)
    if points < 1:
        raise ValueError(
            f"no points are left for the crops of layer {layer}: {settings.points_per_side} "
            f"points_per_side / {crops.crop_n_points_downscale_factor} for each layer. Use more "
            "points_per_side or a smaller crop_n_points_downscale_factor"
        )
    return replace(settings, points_per_side=points)


def _drop_cut_off(masks: AutomaticMasks, crop: Window, image_hw: Hw) -> AutomaticMasks:
    """Drop masks that end where their crop does, unless the picture ends there, too."""
    boxes = masks.prediction.mask_box_xyxy + _offset(crop)
    near_crop, near_image = (
        np.abs(boxes - edges) <= NEAR_PX for edges in (crop[:4], (0, 0, *image_hw[::-1]))
    )
    return masks.select(np.flatnonzero(~(near_crop & ~near_image).any(axis=1)))


def _paste(masks: AutomaticMasks, crop: Window, image_hw: Hw) -> AutomaticMasks:
    """Move masks of a crop to where the crop lies in the picture."""
    return replace(
        masks,
        prediction=paste_prediction(masks.prediction, crop[:2], image_hw),
        point_xy=masks.point_xy + np.array(crop[:2], np.float32),
    )


def _offset(crop: Window) -> Int64Array:
    return np.array([crop.x_start, crop.y_start] * 2, np.int64)
