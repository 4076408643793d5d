"""What somebody clicked in a picture: prompts, the masks they gave, and the classes of these.

One JSON file a picture. Its ``prompts`` are rows that `load_prompts` reads, so the file is also an
input of ``prompts/load@v1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import supervision as sv
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sam2_blocks.masks.rle import coco_to_rle, rle_to_coco, rles_to_boxes_xyxy
from sam2_blocks.masks.stack import MaskStack
from sam2_blocks.prompts import parse_prompts
from sam2_blocks.values import Hw, Image, Rle

MOST_OBJECTS = 10_000
"""In one picture."""

Side = Annotated[int, Field(ge=1, le=100_000)]
ClassName = Annotated[str, Field(min_length=1, max_length=200)]


class ClickedObject(BaseModel):
    """One object of a picture.

    Attributes:
        class_name: what it is.
        mask: COCO run lengths.
        confidence: the model's own estimate of the mask's quality, if a model made it.
        choice: which of the masks that the model proposed, from 0, the surest.
        found: whether it was found without clicks; its prompt is then the box of its mask.
    """

    model_config = ConfigDict(extra="forbid")

    class_name: ClassName = "object"
    mask: dict[str, Any]
    confidence: Annotated[float, Field(ge=-10, le=10)] | None = None
    choice: Annotated[int, Field(ge=0, le=15)] = 0
    found: bool = False

    @field_validator("mask")
    @classmethod
    def _is_rle(cls, mask: dict[str, Any]) -> dict[str, Any]:
        return dict(rle_to_coco(coco_to_rle(mask)))

    def rle(self) -> Rle:
        """Return the mask's run lengths."""
        return coco_to_rle(self.mask)


class ClickedPicture(BaseModel):
    """The objects of one picture.

    Attributes:
        clicks_version: of this form.
        file_name: the picture's, below the folder it is in, with ``/``.
        width: of the picture, pixels.
        height: of the picture, pixels.
        image_id: the picture's content, as the service calls it.
        model: what made the masks.
        prompts: one row an object, as `parse_prompts` reads them.
        objects: in the order of the prompts.
    """

    model_config = ConfigDict(extra="forbid")

    clicks_version: Literal[1] = 1
    file_name: Annotated[str, Field(min_length=1, max_length=1000)]
    width: Side
    height: Side
    image_id: Annotated[str, Field(max_length=512)] | None = None
    model: Annotated[str, Field(max_length=256)] | None = None
    prompts: Annotated[list[dict[str, Any]], Field(max_length=MOST_OBJECTS)]
    objects: Annotated[list[ClickedObject], Field(max_length=MOST_OBJECTS)]

    @model_validator(mode="after")
    def _fit_together(self) -> ClickedPicture:
        if len(self.prompts) != len(self.objects):
            counts = f"{len(self.prompts)} prompts and {len(self.objects)} objects"
            raise ValueError(f"wants one prompt an object, got {counts}")
        parse_prompts(self.prompts)
        for index, one in enumerate(self.objects):
            height, width = one.rle().size
            if (height, width) != self.hw:
                raise ValueError(
                    f"the mask of object {index} is {width}x{height} pixels, the picture "
                    f"{self.width}x{self.height}"
                )
        return self

    @property
    def hw(self) -> Hw:
        """Height and width of the picture in pixels."""
        return self.height, self.width

    def image(self, path: Path | None = None) -> Image:
        """Return name, size and file of the picture; its pixels are black, and take no memory."""
        pixels = np.broadcast_to(np.zeros(1, np.uint8), (*self.hw, 3))
        return Image(pixels, self.file_name, path)


def clicks_to_detections(picture: ClickedPicture, classes: Sequence[str] = ()) -> sv.Detections:
    """Return the objects of a picture as detections, in their order.

    Args:
        picture: what was clicked.
        classes: names by class id; others get the ids that follow, in the order they appear.
    """
    names = [one.class_name for one in picture.objects]
    numbers = {name: number for number, name in enumerate(dict.fromkeys([*classes, *names]))}
    rles = [one.rle() for one in picture.objects]
    boxes_xyxy = rles_to_boxes_xyxy(rles)
    sure = [1.0 if one.confidence is None else one.confidence for one in picture.objects]
    return sv.Detections(
        xyxy=boxes_xyxy.astype(np.float32),
        mask=MaskStack.from_rles(rles, picture.hw),
        confidence=np.array(sure, np.float32),
        class_id=np.array([numbers[name] for name in names], np.int64),
        data={"class_name": np.array(names, np.str_)},
    )
