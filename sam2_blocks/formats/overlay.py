"""Labels and clicks on a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil
from PIL import ImageDraw

from sam2_blocks.formats.fonts import Font, font_for
from sam2_blocks.values import PromptSet, UInt8Array

Rgb = tuple[int, int, int]

MOST_COVERED = 0.2
"""Share of the picture that labels may cover together."""

MOST_WIDE = 0.5
"""Share of the picture's width that a label may have."""

PROMPT_COLOURS: tuple[Rgb, Rgb] = (220, 30, 30), (20, 170, 60)
"""Of background and foreground clicks."""


class Label(NamedTuple):
    """A text that belongs to a box, and its colour."""

    text: str
    box_xyxy: Sequence[float]
    colour: Rgb


def draw_labels(
    pixels: UInt8Array, labels: Sequence[Label], *, size_px: float, family: str = ""
) -> UInt8Array:
    """Write labels beside their boxes, inside the picture, none over another.

    The first ones get the best places. One that has no free place is left out, and so is what
    would cover more than `MOST_COVERED` of the picture. A long one is shortened to `MOST_WIDE`;
    line breaks, which fonts cannot lay out, become spaces.

    Args:
        pixels: uint8 RGB, (H, W, 3); not changed.
        labels: the most important first.
        size_px: height of the letters.
        family: see `font_for`.
    """
    picture = Pil.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    height, width = pixels.shape[:2]
    taken = np.empty((0, 4))
    room = MOST_COVERED * height * width
    padding = max(1, round(size_px / 5))
    for label in labels:
        font, text = font_for(" ".join(label.text.split()), size_px, family)
        text = _shortened(font, text, MOST_WIDE * width - 2 * padding)
        wide, high = _extent(font, text, padding)
        if wide * high > room:
            continue
        place = next(_free_places(label.box_xyxy, (wide, high), (height, width), taken), None)
        if place is None:
            continue
        x, y = place
        taken = np.vstack((taken, (x, y, x + wide, y + high)))
        room -= wide * high
        pen.rectangle((x, y, x + wide - 1, y + high - 1), fill=label.colour)
        pen.text(
            (x + padding, y + padding), text, fill=_contrast(label.colour), font=font, anchor="lt"
        )
    return np.asarray(picture)


def draw_prompts(pixels: UInt8Array, prompts: PromptSet, *, size_px: float) -> UInt8Array:
    """Draw boxes and clicks: green for what belongs to an object, red for what does not.

    Args:
        pixels: uint8 RGB, (H, W, 3); not changed.
        prompts: in pixels of the picture.
        size_px: radius of a click.
    """
    picture = Pil.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    edge = max(1, round(size_px / 3))
    for prompt in prompts.prompts:
        if prompt.box_xyxy is not None:
            pen.rectangle(tuple(map(float, prompt.box_xyxy)), outline=PROMPT_COLOURS[1], width=edge)
        if prompt.point_coords is not None and prompt.point_labels is not None:
            for (x, y), label in zip(prompt.point_coords, prompt.point_labels, strict=True):
                circle = (x - size_px, y - size_px, x + size_px, y + size_px)
                colour = PROMPT_COLOURS[int(label > 0)]
                pen.ellipse(circle, fill=colour, outline=(255, 255, 255), width=edge)
    return np.asarray(picture)


def _shortened(font: Font, text: str, most_px: float) -> str:
    """As much of a text as fits, with dots at its end if that is not all."""
    if font.getlength(text) <= most_px:
        return text
    fits, too_many = 0, len(text)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if font.getlength(text[:middle].rstrip() + "...") <= most_px:
            fits = middle
        else:
            too_many = middle
    return text[:fits].rstrip() + "..." if fits else text[:1]


def _extent(font: Font, text: str, padding: int) -> tuple[int, int]:
    """Width and height of a label, which is as high for any text."""
    left, _, right, _ = font.getbbox(text, anchor="lt")
    heights = [font.getbbox(one, anchor="lt")[3] for one in (text, "Ägy")]
    return int(right - left) + 2 * padding, int(max(heights)) + 2 * padding


def _free_places(
    box: Sequence[float], size: tuple[int, int], hw: tuple[int, int], taken: NDArray[np.float64]
) -> Iterator[tuple[int, int]]:
    """Places inside the picture that no label has, the best first: above the box, inside, below."""
    (wide, high), (height, width) = size, hw
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    if wide > width or high > height:
        return
    for x, y in (
        (x0, y0 - high),
        (x0, y0),
        (x1 - wide, y0 - high),
        (x0, y1),
        (x1 - wide, y1),
        (x1 - wide, y0),
        (x0, y1 - high),
        (x1 - wide, y1 - high),
        (x1, y0),
        (x0 - wide, y0),
    ):
        x, y = min(max(x, 0), width - wide), min(max(y, 0), height - high)
        apart = (
            (taken[:, 0] >= x + wide)
            | (taken[:, 2] <= x)
            | (taken[:, 1] >= y + high)
            | (taken[:, 3] <= y)
        )
        if apart.all():
            yield x, y


def _contrast(colour: Rgb) -> Rgb:
    """Black or white, whichever is easier to read on a colour (by its luma, ITU-R BT.601)."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
