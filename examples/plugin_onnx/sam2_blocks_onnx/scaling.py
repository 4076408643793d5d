"""Pictures to the size of a network's input, and boxes back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

GREY = 114  # around a letterboxed picture
MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Scaling:
    """How one picture lies in the input.

    Attributes:
        image_hw: size of the picture.
        inside_hw: its size in the input.
        corner_xy: where its top left corner is there.
        input_hw: size of the input.
    """

    image_hw: tuple[int, int]
    inside_hw: tuple[int, int]
    corner_xy: tuple[int, int]
    input_hw: tuple[int, int]

    def boxes_back(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring boxes from pixels of the input to pixels of the picture, cut at its borders."""
        height, width = self.image_hw
        gains = np.array([self.inside_hw[1] / width, self.inside_hw[0] / height] * 2)
        moved = (boxes_xyxy - np.array(self.corner_xy * 2)) / gains
        return moved.clip(0, [width, height, width, height]).astype(np.float32)


def scaling_of(image_hw: tuple[int, int], input_hw: tuple[int, int], resize: str) -> Scaling:
    """Say how a picture is laid into the input.

    Args:
        image_hw: size of the picture.
        input_hw: size of the input.
        resize: ``letterbox`` keeps its shape and centres it; ``stretch`` fills the input.
    """
    if resize == "stretch":
        return Scaling(image_hw, input_hw, (0, 0), input_hw)
    gain = min(input_hw[0] / image_hw[0], input_hw[1] / image_hw[1])
    inside_hw = max(1, round(image_hw[0] * gain)), max(1, round(image_hw[1] * gain))
    # An odd row or column of grey goes to the end, as in the code of YOLO's exporters.
    top, left = (round((i - o) / 2 - 0.1) for i, o in zip(input_hw, inside_hw, strict=True))
    return Scaling(image_hw, inside_hw, (left, top), input_hw)


def to_input(
    pixels: NDArray[np.uint8], scaling: Scaling, *, normalize: str = "none"
) -> NDArray[np.float32]:
    """Make one picture an input.

    Args:
        pixels: uint8, (H, W, 3), RGB.
        scaling: how it lies there.
        normalize: ``none`` for colours from 0 to 1, ``imagenet`` for mean and deviation of that.

    Returns:
        float32, (3, H, W) of the input.
    """
    height, width = scaling.inside_hw
    if (height, width) != scaling.image_hw:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    left, top = scaling.corner_xy
    laid = np.full((*scaling.input_hw, 3), GREY, np.uint8)
    laid[top : top + height, left : left + width] = pixels
    colours = laid.astype(np.float32) / 255
    if normalize == "imagenet":
        colours = (colours - MEAN) / DEVIATION
    return np.ascontiguousarray(colours.transpose(2, 0, 1))
