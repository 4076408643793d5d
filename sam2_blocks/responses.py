"""The ``Sam2*`` responses of Roboflow Inference; `requests` has what they answer.

Source: ``inference/core/entities/responses/sam2.py`` in roboflow/inference.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from sam2_blocks.entities import Entity


class Sam2EmbeddingResponse(Entity):
    """Where an embedding was kept."""

    extensions: ClassVar[frozenset[str]] = frozenset({"inference_id"})

    inference_id: str | None = Field(default=None, description="The id of the request.")
    image_id: str = Field(description="Name under which the image can be used again.")
    time: float = Field(description="Seconds it took, preprocessing included.")


class Sam2SegmentationPrediction(Entity):
    """The mask of one prompt, or one of the automatic ones."""

    extensions: ClassVar[frozenset[str]] = frozenset({"candidates", "error"})

    masks: list[list[list[int]]] | dict[str, Any] = Field(
        description="Polygons, each a list of [x, y]; or a COCO RLE with size and counts."
    )
    confidence: float = Field(description="The model's own estimate of the quality of the mask.")
    format: str | None = Field(default="polygon", description="polygon or rle")
    candidates: list[Sam2SegmentationPrediction] | None = Field(
        default=None, description="Extension: all that was proposed, the surest, chosen one first."
    )
    error: str | None = Field(
        default=None, description="Extension: why the prompt was skipped; the mask is empty then."
    )


class Sam2SegmentationResponse(Entity):
    """The masks of an image: in the order of the prompts, or the surest automatic ones first."""

    extensions: ClassVar[frozenset[str]] = frozenset({"unprompted", "inference_id", "warnings"})

    inference_id: str | None = Field(default=None, description="The id of the request.")
    predictions: list[Sam2SegmentationPrediction]
    time: float = Field(description="Seconds it took, preprocessing included.")
    unprompted: Literal[True] | None = Field(
        default=None,
        description="Extension: there was no prompt; the mask is what the model makes of none.",
    )
    warnings: list[str] | None = Field(
        default=None,
        description="Extension: what is probably not meant, such as boxes between 0 and 1, which "
        "are taken for pixels all the same.",
    )
