"""Both ways through a clip from the frames that were prompted, for annotation.

One pass goes back from the last prompted frame, one goes forward from the first; of an object that
both found on a frame, the pass whose prompt is nearer wins. Only the way back is kept until the
way forward meets it, on disk.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np

from sam2_blocks.executors import Tracker
from sam2_blocks.options import TrackSettings
from sam2_blocks.values import Image, Prompt, Rle, Tracks, TrackState

DEFAULT_TRACKING = TrackSettings()


@dataclass(frozen=True, eq=False)
class ClipPrompt:
    """What is known of one object on one frame of a clip.

    Attributes:
        frame: place of the frame in the clip, from 0.
        tracker_id: which object.
        prompt: where it is.

    Example:
        >>> [box] = PromptSet.from_boxes([[36, 466, 150, 576]]).prompts
        >>> ClipPrompt(frame=1, tracker_id=7, prompt=box).tracker_id
        7
    """

    frame: int
    tracker_id: int
    prompt: Prompt | Rle


@dataclass(frozen=True, eq=False)
class _Found:
    """The objects that one pass found on a frame, and how far away their prompts are."""

    tracks: Tracks
    distances: Mapping[int, int]


def propagate(
    executor: Tracker,
    read: Callable[[int], Image],
    count: int,
    prompts: Sequence[ClipPrompt],
    settings: TrackSettings = DEFAULT_TRACKING,
) -> Iterator[Tracks]:
    """Follow objects both ways from the frames they are prompted on.

    Args:
        executor: a model that can track.
        read: reads a frame by its place; called twice for most.
        count: frames of the clip.
        prompts: at least one; several of one object, on different frames, are all heeded.
        settings: see `TrackSettings`.

    Yields:
        The objects of each frame, from the first to the last, sorted by id; ``new`` on the first
        frame an object is prompted on.

    Raises:
        ValueError: if there is no prompt, one is outside the clip, or an object is prompted twice
            on a frame.

    Example:
        >>> coins = read_image("examples/pictures/coins.jpg")
        >>> [box] = PromptSet.from_boxes([[36, 466, 150, 576]]).prompts
        >>> executor = load_executor("nano", device="cpu")
        >>> found = propagate(executor, lambda place: coins, 3, [ClipPrompt(1, 7, box)])
        >>> [tracks.tracker_id.tolist() for tracks in found]
        [[7], [7], [7]]
    """
    _check(prompts, count)
    first = min(prompt.frame for prompt in prompts)
    last = max(prompt.frame for prompt in prompts)
    begins: dict[int, int] = {}
    for prompt in prompts:
        begins[prompt.tracker_id] = min(prompt.frame, begins.get(prompt.tracker_id, prompt.frame))
    with tempfile.TemporaryFile() as spool:
        places = {
            frame: _put(spool, found)
            for frame, found in _pass(executor, read, range(last, -1, -1), prompts, settings)
        }
        for frame in range(first):
            yield _merge([_take(spool, places[frame])], frame, begins)
        for frame, found in _pass(executor, read, range(first, count), prompts, settings):
            back = [_take(spool, places[frame])] if frame in places else []
            yield _merge([found, *back], frame, begins)


def _check(prompts: Sequence[ClipPrompt], count: int) -> None:
    if not prompts:
        raise ValueError("wants at least one prompt, got none")
    for prompt in prompts:
        if not 0 <= prompt.frame < count:
            raise ValueError(
                f"object {prompt.tracker_id} is prompted on frame {prompt.frame}, but the clip has "
                f"frames 0 to {count - 1}"
            )
    if len({(prompt.frame, prompt.tracker_id) for prompt in prompts}) < len(prompts):
        raise ValueError("an object is prompted twice on a frame; give one prompt each")


def _pass(
    executor: Tracker,
    read: Callable[[int], Image],
    frames: Iterable[int],
    prompts: Sequence[ClipPrompt],
    settings: TrackSettings,
) -> Iterator[tuple[int, _Found]]:
    """Follow objects through frames in this order."""
    prompted: dict[int, int] = {}
    with executor.track(settings) as session:
        for frame in frames:
            here = [prompt for prompt in prompts if prompt.frame == frame]
            ids = [prompt.tracker_id for prompt in here]
            tracks = session.step(read(frame), [prompt.prompt for prompt in here], ids)
            prompted.update(dict.fromkeys(ids, frame))
            distances = {key: abs(frame - start) for key, start in prompted.items()}
            yield frame, _Found(tracks, distances)


def _merge(found: Sequence[_Found], frame: int, begins: Mapping[int, int]) -> Tracks:
    """Take each object from the pass whose prompt is nearer; the first of equals."""
    nearest: dict[int, tuple[int, int, int]] = {}
    for number, one in enumerate(found):
        for row, key in enumerate(one.tracks.tracker_id.tolist()):
            candidate = (one.distances[key], number, row)
            nearest[key] = min(nearest.get(key, candidate), candidate)
    order = sorted(nearest)
    parts = [
        found[nearest[key][1]].tracks.select(np.array([nearest[key][2]], np.int64)) for key in order
    ]
    if not parts:
        return found[0].tracks
    score = np.concatenate([part.object_score for part in parts])
    states: list[TrackState] = [
        "new" if begins[key] == frame else "tracked" if value > 0 else "lost"
        for key, value in zip(order, score, strict=True)
    ]
    prediction = parts[0].prediction.concatenate([part.prediction for part in parts])
    return Tracks(prediction, np.array(order, np.int64), score, tuple(states))


def _put(spool: IO[bytes], found: _Found) -> int:
    place = spool.tell()
    pickle.dump(found, spool, pickle.HIGHEST_PROTOCOL)
    return place


def _take(spool: IO[bytes], place: int) -> _Found:
    spool.seek(place)
    found: _Found = pickle.load(spool)
    return found
