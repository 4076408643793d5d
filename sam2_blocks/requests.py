"""The ``Sam2*`` requests of Roboflow Inference, as its clients send them; `responses` answer them.

Names, defaults and coercions are those of the public server, so a client may point at either.
Unknown keys of a request are ignored, as there. What is different:

- A prompt that cannot be understood is an error with its path, never silently "no prompt".
- Numbers must be finite, boxes must have a size, and ``format`` and image types are checked.
- ``image`` may be left out when ``image_id`` names an image sent before.
- Names have a longest length.
- Fields marked as extensions are ours; unused, they are absent from what we send.

Source: ``inference/core/entities/requests/sam2.py`` in roboflow/inference.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypedDict
from uuid import uuid4

import numpy as np
from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sam2_blocks.entities import Entity, refuse_near_misses
from sam2_blocks.options import AutomaticSettings
from sam2_blocks.prompts import NO_PROMPT, check_prompts
from sam2_blocks.values import Hw, Prompt, PromptSet

Finite = Annotated[float, Field(allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PolygonForm = Literal["centers", "corners"]
ImageType = Literal["base64", "url", "numpy", "file", "multipart", "pil", "numpy_object"]


class Sam2Inputs(TypedDict):
    """Arguments of ``SAM2ImagePredictor.predict``; None where no prompt has such a part."""

    point_coords: list[list[list[float]]] | None
    point_labels: list[list[int]] | None
    box: list[list[float]] | None


# --- prompts ----------------------------------------------------------------------------------


class Box(Entity):
    """A box in pixels, given by its centre."""

    x: Finite
    y: Finite
    width: Length
    height: Length

    def to_xyxy(self) -> list[float]:
        """Return the corners ``[x_min, y_min, x_max, y_max]``."""
        half_width, half_height = self.width / 2, self.height / 2
        return [
            self.x - half_width,
            self.y - half_height,
            self.x + half_width,
            self.y + half_height,
        ]


class Point(Entity):
    """A click in pixels, on the object or (not ``positive``) beside it."""

    x: Finite
    y: Finite
    positive: bool

    def to_hashable(self) -> tuple[float, float, bool]:
        """Return ``(x, y, positive)``."""
        return self.x, self.y, self.positive


class Sam2Prompt(Entity):
    """What shall be segmented: a box, points, or both. One mask comes back.

    Without a box, an empty list of points is no prompt: what the model makes of the picture alone.
    The older form ``point_coords`` [[x, y], …] with ``point_labels`` [1 or 0, …] is read as points.
    """

    also_read: ClassVar[frozenset[str]] = frozenset({"point_coords", "point_labels", "prompts"})

    box: Box | None = None
    points: list[Point] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        return cls.read_fields(given) if isinstance(given, Mapping) else given

    @classmethod
    def read_fields(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Bring what was sent to the form of the fields.

        Raises:
            ValueError: if it says nothing, or the same thing in two ways.
        """
        refuse_near_misses(given, {*cls.model_fields, *cls.also_read})
        fields = dict(given)
        coords, labels = fields.pop("point_coords", None), fields.pop("point_labels", None)
        if coords or labels:
            if fields.get("points"):
                raise ValueError("give points or point_coords, not both")
            fields["points"] = _legacy_points(coords, labels)
        if not {"box", "points"} & fields.keys():
            raise ValueError(f"a prompt needs a box or points, got the keys {list(given)}")
        return fields

    def num_points(self) -> int:
        """Count the points."""
        return len(self.points or [])

    def to_prompt(self) -> Prompt:
        """Convert to our own prompt, not checked against any image."""
        points = self.points or []
        if self.box is None and not points:
            return NO_PROMPT
        with np.errstate(over="ignore"):  # becomes inf, which `check_prompts` refuses by name
            return Prompt(
                None if self.box is None else np.array(self.box.to_xyxy()).astype(np.float32),
                np.array([(p.x, p.y) for p in points]).astype(np.float32) if points else None,
                np.array([p.positive for p in points], np.int32) if points else None,
            )


def _legacy_points(coords: Any, labels: Any) -> list[dict[str, Any]]:
    try:
        return [
            {"x": x, "y": y, "positive": {1: True, 0: False}[label]}
            for (x, y), label in zip(coords, labels, strict=True)
        ]
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            "point_coords must be [[x, y], …] and point_labels as many labels, 1 or 0"
        ) from error


class Sam2PromptSet(Entity):
    """The prompts of one image."""

    prompts: list[Sam2Prompt] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_both_forms(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "prompts" in given:
            beside = {"box", "points", "point_coords"} & given.keys()
            if beside:
                raise ValueError(f"put {sorted(beside)} inside a prompt, not beside 'prompts'")
        return given

    def num_points(self) -> int:
        """Count the points of all prompts."""
        return sum(prompt.num_points() for prompt in self.prompts or [])

    def to_sam2_inputs(self) -> Sam2Inputs:
        """Lay the prompts out as ``SAM2ImagePredictor.predict`` wants them.

        Kept as on the public server: rows of points are ragged, and prompts without a box have no
        row in ``box``, so a set that mixes both needs `to_prompt_set`.
        """
        prompts = self.prompts or []
        points = [prompt.points or [] for prompt in prompts]
        coords = [[[point.x, point.y] for point in row] for row in points]
        labels = [[int(point.positive) for point in row] for row in points]
        boxes = [prompt.box.to_xyxy() for prompt in prompts if prompt.box is not None]
        return {
            "point_coords": coords if any(coords) else None,
            "point_labels": labels if any(labels) else None,
            "box": boxes or None,
        }

    def to_prompt_set(self, image_hw: Hw, *, warn: bool = True) -> PromptSet:
        """Convert to our own prompts, checked against the image.

        Args:
            image_hw: size of the image in pixels.
            warn: False clips boxes silently.

        Raises:
            ValueError: if a prompt lies outside the image; see `check_prompts`.

        Warns:
            PromptWarning: if boxes were clipped.
        """
        return check_prompts(self.to_unchecked(), image_hw, warn=warn)

    def to_unchecked(self) -> PromptSet:
        """Convert to our own prompts, not checked against any image."""
        return PromptSet(tuple(prompt.to_prompt() for prompt in self.prompts or []))


def as_prompt_set(given: Any) -> Any:
    """Bring the forms in which prompts may be sent to that of a prompt set.

    Args:
        given: a prompt set, a list of prompts, or one prompt.
    """
    if isinstance(given, list | tuple):
        return {"prompts": given}
    if isinstance(given, Sam2Prompt) or (isinstance(given, Mapping) and "prompts" not in given):
        return {"prompts": [given] if given else None}
    return given


# --- images -----------------------------------------------------------------------------------


class InferenceRequestImage(Entity):
    """An image, or where to get it.

    ``base64`` may be a data URI; ``url`` is http or https. Whether a server reads ``file`` and
    ``numpy`` at all is its own decision. ``multipart``, ``pil`` and ``numpy_object`` do not travel
    in JSON; they are for callers in the same process.
    """

    type: ImageType = Field(examples=["url"])
    value: Any = Field(
        default=None, examples=["https://example.com/cat.jpg"], validate_default=True
    )

    @field_validator("type", mode="before")
    @classmethod
    def _lower(cls, given: Any) -> Any:
        return given.lower() if isinstance(given, str) else given

    @field_validator("value")
    @classmethod
    def _fits_type(cls, value: Any, info: ValidationInfo) -> Any:
        type_ = info.data.get("type")
        if type_ is None:  # already reported
            return value
        if value is None or (isinstance(value, str | bytes) and not value):
            raise ValueError(f"an image of type {type_!r} needs a value")
        if type_ in ("base64", "url", "file") and not isinstance(value, str | bytes):
            raise ValueError(f"an image of type {type_!r} is a string, not {type(value).__name__}")
        if type_ == "url" and not str(value).lower().startswith(("http://", "https://")):
            raise ValueError("the URL of an image starts with http:// or https://")
        return value


# --- requests ---------------------------------------------------------------------------------


def _default_version() -> str:
    return os.environ.get("SAM2_VERSION_ID", "hiera_large")


class Sam2InferenceRequest(Entity):
    """What all requests share.

    ``model_id`` and ``sam2_version_id`` say the same and are made from each other.
    """

    extensions: ClassVar[frozenset[str]] = frozenset({"model_version"})

    id: str = Field(default_factory=lambda: str(uuid4()))
    api_key: str | None = None
    usage_billable: bool = True
    start: float | None = None
    source: str | None = None
    source_info: str | None = None
    disable_model_monitoring: bool | None = False
    sam2_version_id: str | None = Field(
        default_factory=_default_version,
        validate_default=True,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$",
        max_length=64,
        description="hiera_tiny, hiera_small, hiera_b_plus or hiera_large.",
        examples=["hiera_large"],  # null leaves the choice to the server
    )
    model_id: str | None = Field(
        default=None,
        validate_default=True,
        max_length=256,
        description="sam2/<sam2_version_id>",
    )
    model_version: Literal["2.0", "2.1"] | None = Field(
        default=None, description="Extension: which release of the weights."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_model_id(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("sam2_version_id") is None:
            family, _, version = str(given.get("model_id") or "").partition("/")
            if family == "sam2" and version:
                return {**given, "sam2_version_id": version}
        return given

    @field_validator("model_id")
    @classmethod
    def _complete_model_id(cls, model_id: str | None, info: ValidationInfo) -> str | None:
        version = info.data.get("sam2_version_id")
        if version is None:
            return model_id
        expected = f"sam2/{version}"
        if model_id is not None and model_id.startswith("sam2/") and model_id != expected:
            raise ValueError(f"{model_id!r} is not the model of sam2_version_id {version!r}")
        return expected if model_id is None else model_id


class _ImageRequest(Sam2InferenceRequest):
    image: InferenceRequestImage | None = Field(
        default=None, description="The image; may be left out if image_id names a known one."
    )
    image_id: str | None = Field(
        default=None,
        validate_default=True,
        max_length=512,
        examples=["image_id"],
        description="A name for the image, under which it can be used again.",
    )

    @field_validator("image_id")
    @classmethod
    def _some_image(cls, image_id: str | None, info: ValidationInfo) -> str | None:
        if not image_id and "image" in info.data and info.data["image"] is None:
            raise ValueError("give image, or the image_id of an image sent before")
        return image_id or None


class Sam2EmbeddingRequest(_ImageRequest):
    """Embed an image and keep the result under ``image_id``."""

    format: Literal["json", "binary"] = Field(
        default="json",
        description="json answers with the image_id; binary, an extension, with the tensors.",
    )


class Sam2AutomaticMasks(Entity):
    """Extension: how to find the masks of everything, as in ``SAM2AutomaticMaskGenerator``."""

    model_config = ConfigDict(extra="forbid")

    points_per_side: int = Field(
        default=32, ge=1, le=128, description="Points along each side of the grid of prompts."
    )
    pred_iou_thresh: float = Field(
        default=0.8, ge=0, le=1, description="Leave out masks not surer than this; 0: none."
    )
    stability_score_thresh: float = Field(
        default=0.95, ge=0, le=1, description="Leave out masks less stable than this; 0: none."
    )
    stability_score_offset: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="How far the threshold of the logits moves, both ways, to measure stability.",
    )
    box_nms_thresh: float = Field(
        default=0.7, ge=0, le=1, description="Boxes that overlap more (IoU) are duplicates."
    )
    min_mask_region_area: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Fill holes and remove specks up to this many low-resolution pixels.",
    )

    def to_settings(self, *, multimask_output: bool) -> AutomaticSettings:
        """Convert to our own settings."""
        return AutomaticSettings(**self.model_dump(), multimask_output=multimask_output)


class Sam2SegmentationRequest(_ImageRequest):
    """Segment an image: one mask for each prompt.

    ``prompts`` may be a prompt set, a list of prompts, or one prompt. Without any, the answer is
    the one mask that the public server gives, or with ``automatic_masks`` those of everything.
    """

    extensions: ClassVar[frozenset[str]] = frozenset({
        "model_version", "min_confidence", "tolerance", "polygon_form", "automatic_masks",
        "candidates", "on_bad_prompt",
    })  # fmt: skip

    format: Literal["json", "rle", "binary"] = Field(
        default="json",
        description="json answers with polygons, rle with COCO run lengths, binary with logits.",
    )
    prompts: Sam2PromptSet = Field(
        default_factory=Sam2PromptSet,
        examples=[{"prompts": [{"points": [{"x": 100, "y": 100, "positive": True}]}]}],
    )
    multimask_output: bool = Field(
        default=True,
        description="Propose three masks for each prompt and answer with the best.",
    )
    save_logits_to_cache: bool = Field(
        default=False, description="Keep the low-resolution logits for later requests."
    )
    load_logits_from_cache: bool = Field(
        default=False, description="Start from the logits of an earlier prompt with fewer points."
    )
    min_confidence: float | None = Field(
        default=None, ge=0, le=1, description="Extension: leave out masks less sure than this."
    )
    tolerance: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Extension: polygons may move by at most this many pixels.",
    )
    polygon_form: PolygonForm | None = Field(
        default=None,
        description="Extension: centers, the default, has polygons run through the centres of "
        "border pixels, without holes, as on the public server; corners has them run along the "
        "edges of pixels, holes included, so that filling them gives the mask back exactly.",
    )
    automatic_masks: Sam2AutomaticMasks | None = Field(
        default=None,
        description="Extension: find the masks of everything; true for the defaults. Takes no "
        "prompts, and saves and loads no logits.",
    )
    candidates: bool | None = Field(
        default=None,
        description="Extension: also answer with every mask the model proposed for a prompt.",
    )
    on_bad_prompt: Literal["error", "skip"] | None = Field(
        default=None,
        description="Extension: what a prompt that means nothing in the image does: error, the "
        "default, fails the request; skip answers it with an empty mask and the reason.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_legacy_points(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        legacy = {name: given.get(name) for name in ("point_coords", "point_labels")}
        if not any(legacy.values()):
            return given
        if given.get("prompts") is not None:
            raise ValueError("give prompts or point_coords, not both")
        return {**given, "prompts": [legacy]}

    @field_validator("prompts", mode="before")
    @classmethod
    def _read_prompts(cls, given: Any) -> Any:
        return Sam2PromptSet() if given is None else as_prompt_set(given)

    @field_validator("automatic_masks", mode="before")
    @classmethod
    def _read_switch(cls, given: Any) -> Any:
        if isinstance(given, bool):
            return Sam2AutomaticMasks() if given else None
        return given

    @field_validator("automatic_masks")
    @classmethod
    def _prompts_or_none(
        cls, automatic: Sam2AutomaticMasks | None, info: ValidationInfo
    ) -> Sam2AutomaticMasks | None:
        prompts = info.data.get("prompts")
        if automatic is not None and prompts is not None and prompts.prompts:
            raise ValueError("give prompts or automatic_masks, not both")
        return automatic
