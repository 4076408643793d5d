"""Draw ``toys.mp4``: a ball, a star and a block that move, turn, cross and hide behind a post.

python examples/videos/make_toys.py examples/videos/toys.mp4
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sam2_blocks.formats.video import VideoFile

WIDTH, HEIGHT = 320, 240
FRAMES, FPS = 60, 12
OVERSAMPLED = 3  # drawn larger and shrunk, for smooth edges
Point = tuple[float, float]


def draw_frame(number: int) -> np.ndarray:
    """Draw one frame: uint8, (H, W, 3) RGB."""
    picture = background().copy()
    pen = ImageDraw.Draw(picture)
    t = number / FRAMES
    shapes = [
        (star(70 + 190 * t, 62 + 12 * math.sin(7 * t), 30, 2.4 * t), (236, 190, 44)),
        (block(250 - 180 * t, 178, 44, 30, -1.7 * t), (58, 104, 190)),
        (ball(30 + 250 * t, 120 + 26 * math.cos(6 * t), 24), (206, 58, 52)),
    ]
    for outline, colour in shapes:
        points = [(x * OVERSAMPLED, y * OVERSAMPLED) for x, y in outline]
        pen.polygon(points, fill=colour)
    post = [178, 84, 198, HEIGHT]
    pen.rectangle([side * OVERSAMPLED for side in post], fill=(92, 74, 60))
    return np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def background() -> Image.Image:
    """A wall and a floor with a soft texture, the same on every frame."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(96, 160, (40, 54, 3), np.uint8))
    size = (WIDTH * OVERSAMPLED, HEIGHT * OVERSAMPLED)
    texture = noise.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(9))
    picture = Image.blend(Image.new("RGB", size, (156, 172, 164)), texture, 0.45)
    floor = [0, 198 * OVERSAMPLED, *size]
    ImageDraw.Draw(picture).rectangle(floor, fill=(142, 124, 102))
    return picture


def ball(x: float, y: float, radius: float) -> list[Point]:
    """Outline of a circle."""
    turns = [2 * math.pi * k / 48 for k in range(48)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in turns]


def star(x: float, y: float, radius: float, turn: float) -> list[Point]:
    """Outline of a five-pointed star."""
    corners = [(radius if k % 2 == 0 else 0.48 * radius, turn + math.pi * k / 5) for k in range(10)]
    return [(x + r * math.sin(a), y - r * math.cos(a)) for r, a in corners]


def block(x: float, y: float, width: float, height: float, turn: float) -> list[Point]:
    """Outline of a turned rectangle."""
    cos, sin = math.cos(turn), math.sin(turn)
    corners = [(-width, -height), (width, -height), (width, height), (-width, height)]
    return [(x + (a * cos - b * sin) / 2, y + (a * sin + b * cos) / 2) for a, b in corners]


if __name__ == "__main__":
    video = VideoFile(Path(sys.argv[1]), fps=FPS)
    for number in range(FRAMES):
        video.add(draw_frame(number))
    video.close()
