"""The common case in one call: a picture and what marks its objects in, detections out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.formats.images import array_to_image, check_image, read_image
from sam2_blocks.options import SegmentOptions, check_finite, check_whole
from sam2_blocks.prompts import is_detections, to_prompt_set
from sam2_blocks.values import Embedding, Image, PromptSet

if TYPE_CHECKING:
    import supervision as sv
    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

    Picture = Image | Embedding | NDArray[Any] | PilImage | str | Path | bytes

BAD_PROMPTS = ("auto", "error", "skip")


def segment(
    image: Picture,
    prompts: sv.Detections | PromptSet | NDArray[Any] | Sequence[Any],
    model: str | Path = "nano",
    *,
    device: str = "auto",
    dtype: str = "auto",
    backend: str = "auto",
    input_px: int = 0,
    options: SegmentOptions | None = None,
    min_confidence: float = 0.0,
    tile_px: int = 0,
    on_bad_prompt: Literal["auto", "error", "skip"] = "auto",
) -> sv.Detections:
    """Segment what boxes, detections or prompts mark in one picture.

    It is the block ``sam2/segment@v1`` without a pipeline. A model is loaded on its first use and
    kept as long as the process lives.

    Args:
        image: uint8 RGB (H, W, 3), a Pillow picture, a path, the bytes of a file, an `Image`, or
            the `Embedding` of one, which brings its own model.
        prompts: boxes (N, 4) as x_min, y_min, x_max, y_max in pixels; ``supervision.Detections``,
            whose boxes are the prompts and whose classes and ids are carried over; a `PromptSet`;
            or a list of mappings with ``box_xyxy``, ``point_coords`` and ``point_labels``.
        model: catalogue name such as ``nano`` or ``hiera_tiny``, or the path of a checkpoint.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: ``auto``, ``float32``, ``bfloat16``, ``float16`` or ``int8``.
        backend: ``auto``, ``torch`` or ``openvino``; see `load_executor`.
        input_px: side of the square the network sees; 0 is what it was trained with.
        options: of the mask decoder.
        min_confidence: drop masks whose predicted IoU is lower.
        tile_px: answer each prompt on a tile of this side length around it; 0 takes the picture.
        on_bad_prompt: what a prompt that means nothing in the picture does: ``error``, or ``skip``,
            which gives an empty mask with the reason in ``data["prompt_error"]``; ``auto`` skips
            those of detections.

    Returns:
        One row a prompt, in order; see `to_detections`.

    Raises:
        TypeError: if the picture or the prompts are nothing of this kind.
        ValueError: if a prompt means nothing in the picture, or an argument is out of its range.
        ImageError: if the picture cannot be read.
        ModelError: if the model, its device or its dtype is not to be had.

    Example:
        >>> import numpy as np
        >>> picture = np.zeros((60, 80, 3), np.uint8)
        >>> len(segment(picture, [[10, 10, 40, 50]]))
        1
    """
    from sam2_blocks.blocks.segment import Segment

    check_finite("min_confidence", min_confidence)
    check_whole("tile_px", tile_px, 0)
    if on_bad_prompt not in BAD_PROMPTS:
        raise ValueError(f"on_bad_prompt wants one of {BAD_PROMPTS}, got {on_bad_prompt!r}")
    if not isinstance(model, str | Path):
        raise TypeError(f"model wants a name or a path, got {type(model).__name__}")
    options = options or SegmentOptions()
    if not isinstance(options, SegmentOptions):
        raise TypeError(f"options wants SegmentOptions, got {type(options).__name__}")
    picture = image if isinstance(image, Embedding) else to_image(image)
    item = _Item(
        image=picture if isinstance(picture, Image) else None,
        embedding=picture if isinstance(picture, Embedding) else None,
        boxes=prompts if is_detections(prompts) else None,
        prompts=None if is_detections(prompts) else to_prompt_set(prompts),
        model=str(model),
        device=device,
        dtype=dtype,
        backend=backend,
        input_px=input_px,
        min_confidence=min_confidence,
        tile_px=tile_px,
        on_bad_prompt=on_bad_prompt,
        **options.keywords(),
    )
    [result] = Segment(_resources()).run([item])
    if isinstance(result, Exception):
        raise result
    return result["predictions"]


def to_image(given: Image | NDArray[Any] | PilImage | str | Path | bytes) -> Image:
    """Make a picture of an array, a Pillow picture, a path or the bytes of a file.

    Raises:
        ImageError: if it is nothing of this kind or cannot be read.
    """
    if isinstance(given, Image):
        check_image(given)
        return given
    if isinstance(given, np.ndarray):
        return array_to_image(given)
    return read_image(given)


@dataclass
class _Item:
    """What the block wants of one picture; see `SegmentItem`."""

    image: Image | None
    embedding: Embedding | None
    boxes: sv.Detections | None
    prompts: PromptSet | None
    model: str
    device: str
    dtype: str
    backend: str
    input_px: int
    min_confidence: float
    tile_px: int
    on_bad_prompt: Literal["auto", "error", "skip"]
    multimask_output: bool
    mask_threshold: float
    max_hole_area: int
    max_sprinkle_area: int


@lru_cache(maxsize=1)
def _resources() -> Resources:
    return load_plugins().resources()
