"""A whole clip by where it is, and what is known of objects on some of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sam2_blocks.values import Prompt, Rle


@dataclass(frozen=True)
class Clip:
    """A clip as paths and frame numbers, never as pixels; `formats.clips.ClipReader` reads it.

    Attributes:
        id: name of the video; its frames share it as `VideoFrame.video_id`.
        path: the video's file, or the folder of the pictures.
        frames: numbers of the frames that are wanted, rising.
        files: the pictures of these frames, one each; empty where ``path`` is a video's file.
        fps: frames a second of the video, if known.
        value_range: values that are black and white in pictures of more than 8 bits; see
            `sam2_blocks.read_image`.

    Example:
        >>> from pathlib import Path
        >>> clip = Clip("toys.mp4", Path("examples/videos/toys.mp4"), range(10, 70, 5))
        >>> len(clip), clip.place_of(20)
        (12, 2)
    """

    id: str
    path: Path
    frames: Sequence[int]
    files: tuple[Path, ...] = ()
    fps: float | None = None
    value_range: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def place_of(self, frame_index: int) -> int:
        """Return the place in the clip, from 0, of the frame with this number.

        Raises:
            ValueError: if the frame is not one that is wanted.
        """
        try:
            return self.frames.index(frame_index)
        except ValueError:
            raise ValueError(
                f"frame {frame_index} is none of the clip {self.id!r}; it has {_shown(self.frames)}"
            ) from None


@dataclass(frozen=True, eq=False)
class ClipPrompt:
    """What is known of one object on one frame of a clip.

    Attributes:
        frame: number of the frame; from 0 where all frames of a video are in the clip.
        tracker_id: which object.
        prompt: where it is: a box, points, or its mask.
        class_name: what it is, if that is known.

    Example:
        >>> [box] = PromptSet.from_boxes([[36, 466, 150, 576]]).prompts
        >>> ClipPrompt(frame=1, tracker_id=7, prompt=box).tracker_id
        7
    """

    frame: int
    tracker_id: int
    prompt: Prompt | Rle
    class_name: str = "object"


def _shown(frames: Sequence[int]) -> str:
    if not frames:
        return "none"
    step = frames[1] - frames[0] if len(frames) > 1 else 1
    every = "" if step == 1 else f", every {step}"
    return f"{frames[0]} to {frames[-1]}{every}"
