"""The ``Track*`` requests and responses: objects followed through a video, frame by frame.

In the form of the ``Sam2*`` entities, which have no such thing: prompts, images and masks are sent
and read as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from uuid import uuid4

from pydantic import Field, field_validator, model_validator

from sam2_blocks.entities import Entity, refuse_near_misses
from sam2_blocks.options import TrackSettings
from sam2_blocks.requests import (
    InferenceRequestImage,
    PolygonForm,
    Sam2InferenceRequest,
    Sam2Prompt,
    as_prompt_set,
)
from sam2_blocks.responses import Sam2SegmentationPrediction
from sam2_blocks.values import TrackState

LARGEST_ID = 2**53 - 1
"""Larger numbers are rounded by what reads JSON as JavaScript does."""

TrackerId = Annotated[int, Field(ge=0, le=LARGEST_ID)]
MaskFormat = Literal["json", "rle"]


class TrackPrompt(Sam2Prompt):
    """What shall be followed: a box, points or both; or its mask on this frame."""

    mask: dict[str, Any] | None = Field(
        default=None, description="COCO RLE of the object on this frame, of the frame's size."
    )
    tracker_id: TrackerId | None = Field(
        default=None,
        description="Whom it is about; left out, a new object gets the next free number.",
    )

    @classmethod
    def read_fields(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """See `Sam2Prompt.read_fields`; a mask says all there is to say.

        Raises:
            ValueError: if there is anything beside it.
        """
        if given.get("mask") is None:
            return super().read_fields(given)
        refuse_near_misses(given, {*cls.model_fields, *cls.also_read})
        beside = {"box", "points", "point_coords"} & {key for key in given if given[key]}
        if beside:
            raise ValueError(f"give mask, or {' and '.join(sorted(beside))}, not both")
        return dict(given)

    @model_validator(mode="after")
    def _says_something(self) -> TrackPrompt:
        if self.mask is None and self.box is None and not self.points:
            raise ValueError("a prompt needs a box, at least one point, or a mask")
        return self


class TrackCorrection(TrackPrompt):
    """Where one object is on this frame, whatever was answered first."""

    tracker_id: TrackerId = Field(description="Whom it is about.")
    keep: bool = Field(
        default=False,
        description="Remember the object by this frame as if it had been prompted on it.",
    )


class _FrameFields(Entity):
    image: InferenceRequestImage | None = Field(
        default=None,
        description="The next frame. Without it, all else is about the frame before.",
    )
    prompts: list[TrackPrompt] = Field(
        default_factory=list, description="Objects to follow from this frame on."
    )
    corrections: list[TrackCorrection] = Field(
        default_factory=list, description="Objects to mend on this frame."
    )
    removals: list[TrackerId] = Field(
        default_factory=list, description="Objects to forget before this frame."
    )

    @field_validator("prompts", mode="before")
    @classmethod
    def _read_prompts(cls, given: Any) -> Any:
        read = as_prompt_set(given)
        return (read.get("prompts") or []) if isinstance(read, Mapping) else read or []

    @property
    def says_something(self) -> bool:
        """Whether there is anything in it."""
        return bool(self.image or self.prompts or self.corrections or self.removals)


class TrackFrame(_FrameFields):
    """One frame, and what is known of objects on it."""

    @model_validator(mode="after")
    def _is_not_empty(self) -> TrackFrame:
        if not self.says_something:
            raise ValueError("a frame needs an image, or prompts, corrections or removals")
        return self


class _FramesRequest(_FrameFields):
    """One frame beside the other fields, or several as ``frames``."""

    frames: list[TrackFrame] | None = Field(
        default=None, description="Several frames, instead of the one described beside it."
    )
    format: MaskFormat | None = Field(
        default=None,
        description="json answers with polygons, rle with COCO run lengths. As the session began "
        "if left out; that is json if left out there.",
    )
    tolerance: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Polygons may move by at most this many pixels.",
    )
    polygon_form: PolygonForm | None = Field(
        default=None, description="centers or corners, as in a Sam2SegmentationRequest."
    )

    @model_validator(mode="after")
    def _one_way(self) -> _FramesRequest:
        if self.frames is not None and self.says_something:
            raise ValueError("put image, prompts, corrections and removals inside of frames")
        return self

    def all_frames(self) -> list[TrackFrame]:
        """Return the frames, in order."""
        if self.frames is not None:
            return self.frames
        if not self.says_something:
            return []
        names = _FrameFields.model_fields
        return [TrackFrame.model_construct(**{name: getattr(self, name) for name in names})]


class TrackRequest(_FramesRequest, Sam2InferenceRequest):
    """Begin to follow objects through a video; its first frames may come with it."""

    max_prompt_frames: int = Field(
        default=TrackSettings.max_prompt_frames,
        ge=1,
        le=32,
        description="Of the frames an object was prompted on, by how many it is recognised.",
    )
    memory_frames: int | None = Field(
        default=None,
        ge=1,
        description="Frames remembered of each object; all the model was trained with if left out.",
    )
    non_overlap: bool = Field(
        default=False, description="Give a pixel that several claim to the one surest of it."
    )
    mask_threshold: float = Field(
        default=TrackSettings.mask_threshold,
        allow_inf_nan=False,
        description="Logits above it are inside the mask.",
    )

    def without_frames(self) -> TrackRequest:
        """Return what it says of the session alone, so that no image is kept."""
        none = _FrameFields().model_dump() | {"frames": None}
        return self.model_copy(update=none)

    def to_settings(self) -> TrackSettings:
        """Convert to our own settings."""
        return TrackSettings(
            self.max_prompt_frames, self.memory_frames, self.non_overlap, self.mask_threshold
        )


class TrackFramesRequest(_FramesRequest):
    """The next frames of a session."""

    id: str = Field(default_factory=lambda: str(uuid4()))
    api_key: str | None = None

    @model_validator(mode="after")
    def _has_frames(self) -> TrackFramesRequest:
        if not self.all_frames():
            raise ValueError("give a frame: image, prompts, corrections or removals; or frames")
        return self


# --- responses --------------------------------------------------------------------------------


class TrackedPrediction(Sam2SegmentationPrediction):
    """One object on one frame."""

    tracker_id: int = Field(description="Which object; the same on every frame.")
    object_score: float = Field(description="Logit of the object being seen; it is above 0.")
    state: TrackState = Field(description="new, tracked, or lost, which has an empty mask.")


class TrackFrameError(Entity):
    """Why a frame was not taken."""

    status: int
    message: str


class TrackFrameResponse(Entity):
    """All objects on one frame."""

    extensions: ClassVar[frozenset[str]] = frozenset({"error"})

    frame_index: int | None = Field(
        description="Which frame of those the session has taken, from 0; null if it was not taken."
    )
    predictions: list[TrackedPrediction] = Field(default_factory=list)
    error: TrackFrameError | None = Field(
        default=None, description="Why it was not taken. The session is as before it."
    )


class TrackResponse(Entity):
    """The objects on the frames of a request, in their order."""

    inference_id: str = Field(description="The id of the request.")
    session_id: str = Field(description="Where the next frames go: POST /track/{id}/frames.")
    frames: list[TrackFrameResponse]
    time: float = Field(description="Seconds it took, preprocessing included.")


class TrackSessionResponse(Entity):
    """A session as it stands."""

    session_id: str
    model_id: str
    frames: int = Field(description="Frames taken.")
    width: int | None = Field(description="Of every frame, in pixels; null before the first.")
    height: int | None
    tracker_ids: list[int] = Field(description="The objects that are followed.")
    nbytes: int = Field(description="What is remembered of them.")
    expires_in: float = Field(description="Seconds until it ends if no request comes.")
