"""How executors are asked: options of a call, each with its default and its range."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import isfinite
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class SegmentOptions:
    """How to turn prompts into masks; each is a keyword of `Executor.segment`.

    Attributes:
        multimask_output: propose three masks for each prompt and keep the one with the highest
            predicted IoU; False proposes one.
        mask_threshold: a pixel belongs to the mask where its logit is above.
        max_hole_area: fill holes up to this many low-resolution pixels; 0 fills none.
        max_sprinkle_area: remove specks up to this many low-resolution pixels; 0 removes none.

    Example:
        >>> options = SegmentOptions(max_hole_area=20)
        >>> found = segment("examples/pictures/coins.jpg", [[36, 466, 150, 576]], options=options)
        >>> len(found)
        1
    """

    multimask_output: bool = True
    mask_threshold: float = 0.0
    max_hole_area: int = 0
    max_sprinkle_area: int = 0

    def keywords(self) -> dict[str, Any]:
        """Return them by name, for `Executor.segment`."""
        return asdict(self)

    def checked(self) -> SegmentOptions:
        """Return these options.

        Raises:
            ValueError: if one is out of its range.
        """
        check_finite("mask_threshold", self.mask_threshold)
        for name in ("max_hole_area", "max_sprinkle_area"):
            check_whole(name, getattr(self, name), 0)
        if not isinstance(self.multimask_output, bool | np.bool_):
            raise ValueError(f"multimask_output wants True or False, got {self.multimask_output!r}")
        return self


def check_finite(name: str, value: object) -> None:
    """Check that a value is a finite number, Python's or numpy's.

    Args:
        name: of the option, for the message.
        value: anything.

    Raises:
        ValueError: if it is none, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value):
        raise ValueError(f"{name} wants a finite number, got {value!r}")


def check_whole(name: str, value: object, least: int) -> None:
    """Check that a value is a whole number, Python's or numpy's, below 2^31.

    Args:
        name: of the option, for the message.
        value: anything.
        least: the smallest that is allowed.

    Raises:
        ValueError: if it is none, or less than ``least``.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or not least <= value < 2**31:  # type: ignore[operator]
        raise ValueError(f"{name} wants {least} or more, got {value!r}")


def settings_of(of: type[Settings], item: object) -> Settings:
    """Gather a dataclass of settings from an item of a block.

    Args:
        of: the dataclass, such as `SegmentOptions`.
        item: has an attribute for each of its fields.
    """
    names = [field.name for field in fields(of)]  # type: ignore[arg-type]
    return of(**{name: getattr(item, name) for name in names})


@dataclass(frozen=True)
class AutomaticSettings:
    """How to segment a picture without prompts.

    Attributes:
        points_per_side: points along each side of the grid.
        pred_iou_thresh: masks whose predicted IoU is not above are dropped; 0 drops none.
        stability_score_thresh: masks less stable than this are dropped; 0 drops none.
        stability_score_offset: how far the threshold of the logits is moved, both ways, to see how
            stable a mask is.
        mask_threshold: a pixel belongs to the mask where its logit is above.
        box_nms_thresh: of two masks whose boxes overlap more than this (IoU), the one with the
            higher predicted IoU stays.
        min_mask_region_area: fill holes and remove specks up to this many low-resolution pixels.
        multimask_output: propose three masks for each point; False proposes one.

    Source: names and defaults of sam2 ``SAM2AutomaticMaskGenerator``.

    Example:
        >>> AutomaticSettings(pred_iou_thresh=0.6, stability_score_thresh=0.6).points_per_side
        32
    """

    points_per_side: int = 32
    pred_iou_thresh: float = 0.8
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    mask_threshold: float = 0.0
    box_nms_thresh: float = 0.7
    min_mask_region_area: int = 0
    multimask_output: bool = True


@dataclass(frozen=True)
class CropSettings:
    """How to cut a picture to segment its parts, too, without prompts.

    Attributes:
        crop_n_layers: layer i has 2^i by 2^i crops; 0 is the whole picture alone.
        crop_nms_thresh: of two masks of different crops whose boxes overlap more than this (IoU),
            the one found in the smaller crop stays.
        crop_overlap_ratio: how much crops of the first layer overlap, as a share of the picture's
            shorter side, 0 to below 1; half of that in the next layer, and so on.
        crop_n_points_downscale_factor: layer i has ``points_per_side`` divided by the i-th power
            of this, rounded down.

    Source: names and defaults of sam2 ``SAM2AutomaticMaskGenerator``.

    Example:
        >>> CropSettings(crop_n_layers=1).crop_nms_thresh
        0.7
    """

    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1


@dataclass(frozen=True)
class TrackSettings:
    """How to follow objects through a video.

    Attributes:
        max_prompt_frames: of the frames an object was prompted on, how many it is recognised by:
            the first and the newest.
        memory_frames: how many frames are remembered of each object, a prompted one and those just
            before; None is all the model was trained with, 7 for the public checkpoints.
        non_overlap: give a pixel that several objects claim to the one surest of it.
        mask_threshold: a pixel belongs to the mask where its logit is above.

    Example:
        >>> TrackSettings(non_overlap=True).max_prompt_frames
        4
    """

    max_prompt_frames: int = 4
    memory_frames: int | None = None
    non_overlap: bool = False
    mask_threshold: float = 0.0
