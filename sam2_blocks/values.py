"""The values that flow through a pipeline: plain frozen dataclasses around arrays.

Axis letters: ``B`` images, ``N`` objects, ``M`` masks per prompt (1 or 3), ``P`` points, ``H, W``
pixels of the original image, ``h, w`` the model's low-resolution grid. Arrays are not copied and
must not be written to once they are inside a value. Checks happen at the border (`kinds`,
`requests`); the constructors here trust their arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

UInt8Array = NDArray[np.uint8]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]
Hw = tuple[int, int]

UNNAMED = "image"
"""Id of a picture that nobody named; a runner gives it the name of its item."""


@dataclass(frozen=True, eq=False)
class Image:
    """One picture.

    Attributes:
        pixels: uint8, (H, W, 3), RGB.
        id: name of the picture for people and for output files, usually the file name.
        path: the file it was read from, if any.
    """

    pixels: UInt8Array
    id: str = UNNAMED
    path: Path | None = None

    @property
    def hw(self) -> Hw:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


DEFAULT_FAMILY = "sam2"
"""The family of models whose names have no prefix."""


class ExecutorSpec(NamedTuple):
    """Which loaded model: resolved names, so that equal specs mean interchangeable embeddings.

    Attributes:
        model: catalogue name such as ``nano`` or ``sam2.1/hiera_tiny``, or a checkpoint's path.
        device: torch device, such as ``cpu`` or ``cuda:0``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        family: the one that loaded it; two families may use one name.
    """

    model: str
    device: str
    dtype: str
    family: str = DEFAULT_FAMILY

    @property
    def full_name(self) -> str:
        """The model's name with its family; see `full_name`."""
        return full_name(self.model, self.family)


def full_name(model: str, family: str) -> str:
    """Return the name of a model with its family, which ``sam2`` needs not; a prefix stays single.

    >>> full_name("base", "mine"), full_name("mine:base", "mine"), full_name("sam2:nano", "sam2")
    ('mine:base', 'mine:base', 'nano')
    """
    bare = model.removeprefix(f"{family}:")
    return bare if family == DEFAULT_FAMILY else f"{family}:{bare}"


@dataclass(frozen=True, eq=False)
class Embedding:
    """What the image encoder knows about one picture; a value, never a mode of the executor.

    Attributes:
        image_embed: (1, C, h/4, w/4) float tensor on the executor's device.
        high_res_feats: tensors (1, C/8, h, w) and (1, C/4, h/2, w/2), finest first; (h, w) is the
            low-resolution mask grid, 256x256 for the public checkpoints.
        image_hw: size of the original picture in pixels.
        image_id: id of the picture it was made from.
        key: content key: pixels, shape, model, dtype and preprocessing.
        spec: the executor that made it, and the only one that can decode it.
    """

    image_embed: Tensor
    high_res_feats: tuple[Tensor, ...]
    image_hw: Hw
    image_id: str
    key: str
    spec: ExecutorSpec

    @property
    def nbytes(self) -> int:
        """Bytes held by the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name: ``image_embed``, ``high_res_feats.0``, …."""
        levels = {f"high_res_feats.{i}": level for i, level in enumerate(self.high_res_feats)}
        return {"image_embed": self.image_embed, **levels}


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the user says about one object; at least one field is given.

    Attributes:
        box_xyxy: float32, (4,), pixels of the original image.
        point_coords: float32, (P, 2), xy pixels of the original image.
        point_labels: int32, (P,), 1 foreground, 0 background.
        mask_input: float32, (1, h, w) low-resolution logits of an earlier prediction.
    """

    box_xyxy: Float32Array | None = None
    point_coords: Float32Array | None = None
    point_labels: NDArray[np.int32] | None = None
    mask_input: Float32Array | None = None


@dataclass(frozen=True, eq=False)
class PromptSet:
    """All prompts of one image, one per object wanted; may be empty."""

    prompts: tuple[Prompt, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)

    @classmethod
    def from_boxes(cls, boxes_xyxy: NDArray[Any] | Sequence[Sequence[float]]) -> PromptSet:
        """Make one box prompt per row.

        Args:
            boxes_xyxy: float, (N, 4), pixels of the original image.
        """
        boxes = np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4)
        return cls(tuple(Prompt(box_xyxy=box) for box in boxes))

    @classmethod
    def from_points(cls, points_xy: NDArray[Any] | Sequence[Sequence[float]]) -> PromptSet:
        """Make one prompt, a foreground click, per row.

        Args:
            points_xy: float, (N, 2), pixels of the original image.
        """
        points = np.asarray(points_xy, dtype=np.float32).reshape(-1, 1, 2)
        return cls(tuple(Prompt(None, coords, np.ones(1, np.int32)) for coords in points))


@dataclass(frozen=True, eq=False)
class Rle:
    """Run lengths of one binary mask, uncompressed; the exact form of a mask.

    Attributes:
        size: (H, W) of the image.
        counts: int64, (R,), column-major run lengths that sum to H * W. The first run is
            background and may be 0; runs after the first are at least 1.

    Source: the COCO mask format, as in sam2 ``utils/amg.py``.
    """

    size: Hw
    counts: Int64Array


@dataclass(frozen=True, eq=False)
class MaskCandidates:
    """All masks the decoder proposed, before one was chosen per prompt.

    Attributes:
        rles: N rows of M masks.
        iou_prediction: float32, (N, M).
        low_res_logits: float32, (N, M, h, w).
    """

    rles: tuple[tuple[Rle, ...], ...]
    iou_prediction: Float32Array
    low_res_logits: Float32Array


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """One chosen mask per prompt of one image, in the order of the prompts.

    Attributes:
        image_hw: size of the original picture in pixels.
        rles: N masks at original size.
        iou_prediction: float32, (N,), the model's own estimate of mask quality.
        low_res_logits: float32, (N, h, w), usable as ``mask_input`` of the next prompt.
        mask_box_xyxy: int64, (N, 4), inclusive pixel indices; zeros where a mask is empty.
        candidates: every proposal, when asked for.
    """

    image_hw: Hw
    rles: tuple[Rle, ...]
    iou_prediction: Float32Array
    low_res_logits: Float32Array
    mask_box_xyxy: Int64Array
    candidates: MaskCandidates | None = None

    def __len__(self) -> int:
        return len(self.rles)

    @classmethod
    def concatenate(cls, predictions: Sequence[MaskPrediction]) -> MaskPrediction:
        """Gather masks of one image in their order, without their candidates; at least one part."""
        return cls(
            image_hw=predictions[0].image_hw,
            rles=tuple(rle for prediction in predictions for rle in prediction.rles),
            iou_prediction=np.concatenate([p.iou_prediction for p in predictions]),
            low_res_logits=np.concatenate([p.low_res_logits for p in predictions]),
            mask_box_xyxy=np.concatenate([p.mask_box_xyxy for p in predictions]),
        )

    def select(self, indices: Int64Array) -> MaskPrediction:
        """Return some of the masks in this order, without their candidates."""
        return MaskPrediction(
            image_hw=self.image_hw,
            rles=tuple(self.rles[index] for index in indices),
            iou_prediction=self.iou_prediction[indices],
            low_res_logits=self.low_res_logits[indices],
            mask_box_xyxy=self.mask_box_xyxy[indices],
        )


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
    """

    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1


@dataclass(frozen=True, eq=False)
class AutomaticMasks:
    """Masks found without prompts.

    Attributes:
        prediction: N masks; without low-resolution logits, (N, 0, 0), unless asked for.
        point_xy: float32, (N, 2), the point of the grid that led to each, original pixels.
        stability_score: float32, (N,), IoU of the mask with itself between a higher and a lower
            threshold; NaN where both are empty.
    """

    prediction: MaskPrediction
    point_xy: Float32Array
    stability_score: Float32Array

    def __len__(self) -> int:
        return len(self.prediction)

    def select(self, indices: Int64Array) -> AutomaticMasks:
        """Return some of the masks in this order."""
        return AutomaticMasks(
            self.prediction.select(indices), self.point_xy[indices], self.stability_score[indices]
        )
