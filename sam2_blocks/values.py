"""The values that flow through a pipeline: plain frozen dataclasses around arrays.

Axis letters: ``B`` images, ``N`` objects, ``M`` masks per prompt (1 or 3), ``P`` points, ``H, W``
pixels of the original image, ``h, w`` the model's low-resolution grid. Arrays are not copied and
must not be written to once they are inside a value. Checks happen at the border (`kinds`,
`requests`); the constructors here trust their arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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


@dataclass(frozen=True)
class VideoFrame:
    """Where in a video a picture is from.

    Attributes:
        video_id: name of the video; frames of one video share it.
        index: number of the frame; it rises, but may start anywhere and leave numbers out.
        timestamp_s: seconds since the video began, if known.
        fps: frames a second of the video, if known.

    Example:
        >>> frame = VideoFrame("street.mp4", 12, fps=25.0)
        >>> frame.video_id, frame.index
        ('street.mp4', 12)
    """

    video_id: str
    index: int
    timestamp_s: float | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Origin:
    """Where a picture was cut from: a window of another one, turned, then scaled.

    Attributes:
        id: of the other picture, its parent.
        hw: size of the parent in pixels.
        window_xyxy: the part of the parent, pixels; x1 and y1 are behind its last column and row.
            It may reach beyond the parent, where the picture is filled.
        size_hw: size of the picture that shows it.
        turns: quarter turns counterclockwise, 0 to 3, that the window was turned by.
        parent: where the parent itself was cut from.
    """

    id: str
    hw: Hw
    window_xyxy: tuple[int, int, int, int]
    size_hw: Hw
    turns: int = 0
    parent: Origin | None = None

    @property
    def offset_xy(self) -> tuple[int, int]:
        """Where the window begins in the parent, pixels."""
        return self.window_xyxy[0], self.window_xyxy[1]

    @property
    def window_hw(self) -> Hw:
        """Size of the window in the parent, pixels."""
        x0, y0, x1, y1 = self.window_xyxy
        return y1 - y0, x1 - x0

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Pixels of the picture to one of the turned window, along its own axes."""
        height, width = self.window_hw if self.turns % 2 == 0 else self.window_hw[::-1]
        return self.size_hw[1] / width, self.size_hw[0] / height


@dataclass(frozen=True, eq=False)
class Image:
    """One picture.

    Attributes:
        pixels: uint8, (H, W, 3), RGB.
        id: name of the picture for people and for output files, usually the file name.
        path: the file it was read from, if any.
        video: where in a video it is from, if it is a frame.
        parent: where it was cut from, if it was.

    Example:
        >>> import numpy as np
        >>> Image(np.zeros((20, 30, 3), np.uint8), "black").hw
        (20, 30)
    """

    pixels: UInt8Array
    id: str = UNNAMED
    path: Path | None = None
    video: VideoFrame | None = None
    parent: Origin | None = field(default=None, kw_only=True)

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
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``int8``.
        family: the one that loaded it; two families may use one name.
        backend: what computes it: ``torch`` or ``openvino``.
        input_px: side of the square the network sees, where it is not the one it was trained with.
    """

    model: str
    device: str
    dtype: str
    family: str = DEFAULT_FAMILY
    backend: str = "torch"
    input_px: int = 0

    @property
    def full_name(self) -> str:
        """The model's name with its family; see `full_name`."""
        return full_name(self.model, self.family)


def full_name(model: str, family: str) -> str:
    """Return the name of a model with the prefix of its family; names of ``sam2`` have none.

    Args:
        model: with or without its prefix.
        family: the one that loads it.

    Example:
        >>> full_name("base", "mine"), full_name("mine:base", "mine"), full_name("nano", "sam2")
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

    Example:
        >>> executor = load_executor("nano", device="cpu")
        >>> [embedding] = executor.embed([read_image("examples/pictures/coins.jpg")])
        >>> embedding.image_id, embedding.image_hw, embedding.spec.model
        ('coins.jpg', (606, 768), 'nano')
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

    def __repr__(self) -> str:
        return (
            f"Embedding(image_id={self.image_id!r}, image_hw={self.image_hw}, "
            f"image_embed={tuple(self.image_embed.shape)}, spec={'/'.join(self.spec[:3])})"
        )


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the user says about one object; at least one field is given.

    Attributes:
        box_xyxy: float32, (4,), pixels of the original image.
        point_coords: float32, (P, 2), xy pixels of the original image.
        point_labels: int32, (P,), 1 foreground, 0 background.
        mask_input: float32, (1, h, w) low-resolution logits of an earlier prediction.
        class_name: of the object, for its mask; says nothing by itself.

    Example:
        >>> import numpy as np
        >>> points = np.array([[225, 60], [430, 20]], np.float32)  # on the object, off it
        >>> len(PromptSet((Prompt(point_coords=points, point_labels=np.array([1, 0])),)))
        1
    """

    box_xyxy: Float32Array | None = None
    point_coords: Float32Array | None = None
    point_labels: NDArray[np.int32] | None = None
    mask_input: Float32Array | None = None
    class_name: str | None = None


@dataclass(frozen=True, eq=False)
class PromptSet:
    """All prompts of one image, one per object wanted; may be empty.

    Example:
        >>> len(PromptSet.from_boxes([[10, 10, 40, 50], [30, 20, 60, 60]]))
        2
    """

    prompts: tuple[Prompt, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)

    @classmethod
    def from_boxes(cls, boxes_xyxy: NDArray[Any] | Sequence[Sequence[float]]) -> PromptSet:
        """Make one box prompt per row.

        Args:
            boxes_xyxy: float, (N, 4), pixels of the original image; an empty list is none.

        Raises:
            ValueError: if the rows are not of four numbers.
        """
        boxes = _rows_of(boxes_xyxy, 4, "boxes_xyxy", _BOX_HINTS)
        return cls(tuple(Prompt(box_xyxy=box) for box in boxes))

    @classmethod
    def from_points(cls, points_xy: NDArray[Any] | Sequence[Sequence[float]]) -> PromptSet:
        """Make one prompt, a foreground click, per row.

        Args:
            points_xy: float, (N, 2), pixels of the original image; an empty list is none.

        Raises:
            ValueError: if the rows are not of two numbers.
        """
        points = _rows_of(points_xy, 2, "points_xy", _POINT_HINTS)
        return cls(tuple(Prompt(None, row[None], np.ones(1, np.int32)) for row in points))


_BOX_HINTS = {
    1: " For one box give a list of one row, [[x_min, y_min, x_max, y_max]].",
    5: " Rows of 5 are usually xyxy and a confidence: give boxes[:, :4].",
    6: " Rows of 6 are usually xyxy, confidence, class: give boxes[:, :4].",
    7: " Rows of 7 are usually xyxy, track id, confidence, class: give boxes[:, :4].",
    8: " Rows of 8 are usually four corners: give the least and the largest x and y of each.",
}
_POINT_HINTS = {
    1: " For one point give a list of one row, [[x, y]].",
    3: " The third column is probably the label: give labels on their own, as point_labels.",
}


def _rows_of(given: object, width: int, name: str, hints: Mapping[int, str]) -> Float32Array:
    """Make (N, width) of rows, which are never reshaped into something else."""
    try:
        array = np.asarray(given)
    except ValueError:
        raise ValueError(f"{name} wants rows of {width} numbers each, {_odd_row(given)}") from None
    if array.dtype.kind not in "iufOU" and array.size:
        hint = " For the boxes of masks give sv.mask_to_xyxy(masks)." if array.ndim == 3 else ""
        raise ValueError(f"{name} wants numbers, got {array.dtype} {array.shape}.{hint}")
    try:
        with np.errstate(over="ignore"):  # becomes inf, which the check of prompts refuses by name
            rows = array.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} wants rows of {width} numbers each: {error}") from error
    if rows.shape == (0,):
        return rows.reshape(0, width)
    if rows.ndim != 2 or rows.shape[1] != width:
        hint = hints.get(rows.shape[-1] if rows.ndim == 2 else rows.ndim, "")
        if rows.ndim == 2 and not hint and len(rows) == width:
            hint = " Rows and columns are probably swapped: give its transpose, .T."
        raise ValueError(f"{name} wants shape (N, {width}), got {rows.shape}.{hint}")
    return rows


def _odd_row(given: Any) -> str:
    """Which row is unlike the first one."""
    lengths = [len(row) if isinstance(row, Sequence | np.ndarray) else None for row in given]
    odd = next((i for i, length in enumerate(lengths) if length != lengths[0]), 0)
    return f"row 0 is {given[0]!r}, row {odd} is {given[odd]!r}"


@dataclass(frozen=True, eq=False)
class Rle:
    """Run lengths of one binary mask, uncompressed; the exact form of a mask.

    Attributes:
        size: (H, W) of the image.
        counts: int64, (R,), column-major run lengths that sum to H * W. The first run is
            background and may be 0; runs after the first are at least 1.

    Source: the COCO mask format, as in sam2 ``utils/amg.py``.

    Example:
        >>> import numpy as np
        >>> rle = Rle((2, 3), np.array([1, 2, 3]))  # down the first column, then the next
        >>> from sam2_blocks.masks import rle_to_mask
        >>> rle_to_mask(rle).astype(int).tolist()
        [[0, 1, 0], [1, 0, 0]]
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

    Example:
        >>> executor = load_executor("nano", device="cpu")
        >>> [embedding] = executor.embed([read_image("examples/pictures/coins.jpg")])
        >>> prompts = PromptSet.from_boxes([[36, 466, 150, 576]])
        >>> [prediction] = executor.segment([(embedding, prompts)])
        >>> len(prediction), bool(prediction.iou_prediction[0] > 0.8)
        (1, True)
    """

    image_hw: Hw
    rles: tuple[Rle, ...]
    iou_prediction: Float32Array
    low_res_logits: Float32Array
    mask_box_xyxy: Int64Array
    candidates: MaskCandidates | None = None

    def __len__(self) -> int:
        return len(self.rles)

    def __repr__(self) -> str:
        extra = "" if self.candidates is None else f", candidates={len(self.candidates.rles)}"
        return (
            f"MaskPrediction({len(self)} masks, image_hw={self.image_hw}, "
            f"low_res_logits={self.low_res_logits.shape}{extra})"
        )

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


@dataclass(frozen=True, eq=False)
class AutomaticMasks:
    """Masks found without prompts.

    Attributes:
        prediction: N masks; without low-resolution logits, (N, 0, 0), unless asked for.
        point_xy: float32, (N, 2), the point of the grid that led to each, original pixels.
        stability_score: float32, (N,), IoU of the mask with itself between a higher and a lower
            threshold; NaN where both are empty.

    Example:
        >>> import numpy as np
        >>> prediction = masks_to_prediction(np.ones((2, 4, 5), bool))
        >>> masks = AutomaticMasks(prediction, np.zeros((2, 2), np.float32), np.ones(2, np.float32))
        >>> len(masks.select(np.array([1])))
        1
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


TrackState = Literal["new", "tracked", "lost"]


@dataclass(frozen=True, eq=False)
class Tracks:
    """The objects of a video on one of its frames, in the order they were started.

    Attributes:
        prediction: N masks; an object that is not seen has an empty one.
        tracker_id: int64, (N,), which object; the same through the whole video.
        object_score: float32, (N,), logit of the object being visible; seen above 0.
        state: N times ``new`` (first frame), ``tracked``, or ``lost`` (not seen on this frame).

    Example:
        >>> coins = read_image("examples/pictures/coins.jpg")
        >>> with load_executor("nano", device="cpu").track() as session:
        ...     first = session.step(coins, PromptSet.from_boxes([[36, 466, 150, 576]]))
        ...     second = session.step(coins)
        >>> first.tracker_id.tolist() == second.tracker_id.tolist(), second.state
        (True, ('tracked',))
    """

    prediction: MaskPrediction
    tracker_id: Int64Array
    object_score: Float32Array
    state: tuple[TrackState, ...]

    def __len__(self) -> int:
        return len(self.prediction)

    def select(self, indices: Int64Array) -> Tracks:
        """Return some of the objects in this order."""
        return Tracks(
            self.prediction.select(indices),
            self.tracker_id[indices],
            self.object_score[indices],
            tuple(self.state[index] for index in indices),
        )
