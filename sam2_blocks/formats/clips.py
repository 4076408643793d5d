"""Clips: as plain data, and their frames, read when somebody wants them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pil

from sam2_blocks.clips import Clip, ClipPrompt
from sam2_blocks.formats.images import MAX_PIXELS, read_image
from sam2_blocks.formats.video import FrameReader
from sam2_blocks.values import Image, Prompt, VideoFrame

KEPT_BYTES = 256 * 2**20
"""Of decoded frames that wait: a video is decoded forwards, whichever way it is read."""
MOST_FRAMES = 2**31
RANGE: Mapping[str, Any] = {"start": 0, "stop": None, "step": 1}
"""How numbers of frames may be written, and what is taken where one is left out."""

SAMPLE_FRAMES = 2


class ClipReader:
    """Reads frames of one clip by their place, in any order.

    Reading backwards decodes a video once for every `KEPT_BYTES` of its frames.

    Args:
        clip: where the frames are.
        max_pixels: largest picture read.
    """

    def __init__(self, clip: Clip, *, max_pixels: int = MAX_PIXELS) -> None:
        self._clip = clip
        self._max_pixels = max_pixels
        self._reader = FrameReader(clip.path, clip.id, clip.fps, waiting_bytes=KEPT_BYTES)

    def read(self, place: int) -> Image:
        """Read one frame.

        Args:
            place: of the frame in the clip, from 0.

        Raises:
            ImageError: if it cannot be read.
        """
        clip, index = self._clip, self._clip.frames[place]
        if not clip.files:
            return self._reader.read(index, frame_id(clip.path.stem, index))
        image = read_image(
            clip.files[place], max_pixels=self._max_pixels, value_range=clip.value_range
        )
        return replace(image, video=VideoFrame(clip.id, index, fps=clip.fps))

    def close(self) -> None:
        """Close the file; reading opens it again."""
        self._reader.close()


def frame_id(video: str, index: int) -> str:
    """Name a frame, ``video/000012``, so that names sort as numbers do.

    Args:
        video: name of the video.
        index: number of the frame.
    """
    return f"{video}/{index:06d}"


def clip_to_plain(clip: Clip) -> dict[str, Any]:
    """Write a clip as `plain_to_clip` reads it: paths and numbers."""
    frames, numbers = clip.frames, None
    if isinstance(frames, range):
        numbers = {"start": frames.start, "stop": frames.stop, "step": frames.step}
    return {
        "id": clip.id,
        "path": str(clip.path),
        "frames": numbers or list(frames),
        **({"files": [str(file) for file in clip.files]} if clip.files else {}),
        **({"fps": clip.fps} if clip.fps else {}),
        **({"value_range": list(clip.value_range)} if clip.value_range else {}),
    }


def plain_to_clip(value: object) -> Clip:
    """Make a clip of a mapping; nothing is opened.

    Raises:
        TypeError: if it is no mapping.
        ValueError: if something is missing, wrong or not known.
    """
    if not isinstance(value, Mapping):
        raise TypeError(
            "wants a mapping with id, path and frames, such as {id: a.mp4, path: a.mp4, frames: "
            f"{{start: 0, stop: 90}}}}, got {type(value).__name__}"
        )
    unknown = sorted(set(value) - {"id", "path", "frames", "files", "fps", "value_range"})
    missing = sorted({"id", "path", "frames"} - set(value))
    if unknown or missing:
        raise ValueError(f"a clip lacks {missing} and knows no {unknown}")
    try:
        clip = Clip(
            str(value["id"]),
            Path(value["path"]),
            _frames(value["frames"]),
            tuple(Path(file) for file in value.get("files", ())),
            None if value.get("fps") is None else float(value["fps"]),
            _range(value.get("value_range")),
        )
    except TypeError as error:
        raise ValueError(f"is no clip: {error}") from error
    if clip.files and len(clip.files) != len(clip.frames):
        raise ValueError(f"wants a file a frame, got {len(clip.files)} for {len(clip.frames)}")
    return clip


@functools.cache
def _sample_folder() -> tempfile.TemporaryDirectory[str]:
    """Frames of a clip for examples, as long as the process lasts."""
    folder = tempfile.TemporaryDirectory(prefix="sam2_blocks-sample-")
    rng = np.random.default_rng(0)
    for number in range(SAMPLE_FRAMES):
        pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Pil.fromarray(pixels).save(Path(folder.name) / f"{number}.png")
    return folder


def sample_clip() -> Clip:
    """A clip of two small pictures, the same every time, whose files are there."""
    folder = Path(_sample_folder().name)
    files = tuple(folder / f"{number}.png" for number in range(SAMPLE_FRAMES))
    return Clip("sample", folder, range(SAMPLE_FRAMES), files)


def sample_prompts() -> tuple[ClipPrompt, ...]:
    """A prompt on the first frame of `sample_clip`."""
    return (ClipPrompt(0, 1, Prompt(box_xyxy=np.array([2, 3, 12, 15], np.float32)), "face"),)


def _frames(value: Any) -> Sequence[int]:
    """Numbers of frames, as a list or as start, stop and step."""
    if not isinstance(value, Mapping):
        numbers = tuple(value)
        if not all(type(number) is int for number in numbers) or numbers != tuple(
            sorted(set(numbers))
        ):
            raise ValueError("frames are whole numbers that rise")
        return numbers
    start, stop, step = (value.get(key, other) for key, other in RANGE.items())
    if not all(type(number) is int for number in (start, stop, step)):
        raise ValueError("frames want start, stop and step as whole numbers")
    if not (0 <= start <= stop <= MOST_FRAMES and step > 0):
        raise ValueError(f"frames want 0 <= start <= stop <= {MOST_FRAMES} and a step above 0")
    return range(start, stop, step)


def _range(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    black, white = value
    return float(black), float(white)
