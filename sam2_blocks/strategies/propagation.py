"""Both ways through a clip from the frames that were prompted, for annotation.

One pass goes back from the last prompted frame, one goes forward from the first; of an object that
both found on a frame, the pass whose prompt is nearer wins. Only the way back is kept until the
way forward meets it, on disk.
"""

from __future__ import annotations

import functools
import pickle
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO

import numpy as np

from sam2_blocks.clips import ClipPrompt
from sam2_blocks.errors import ImageError
from sam2_blocks.executors import Tracker, TrackSession
from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.options import TrackSettings
from sam2_blocks.values import Hw, Image, Tracks, TrackState

DEFAULT_TRACKING = TrackSettings()


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
        read: returns the frame at a place in the clip, from 0; called twice for most frames.
        count: number of frames in the clip.
        prompts: at least one. An object may have several, on different frames; all count.
        settings: see `TrackSettings`.

    Yields:
        The objects of each frame, from the first to the last, sorted by id; ``new`` on the first
        frame an object is prompted on. The masks come without low-resolution logits, (N, 0, 0).

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
    with Propagation(executor, read, count, prompts, settings) as clip:
        for place in range(count):
            yield clip.find(place)


class Propagation:
    """The objects of a clip, frame by frame; the order in which frames are asked for is no matter.

    Frames that cannot be read are left out of both passes, with the prompts on them.

    Args:
        executor: a model that can track.
        read: reads a frame by its place; raises `ImageError` where it cannot.
        count: frames of the clip.
        prompts: at least one; see `propagate`.
        settings: see `TrackSettings`.

    Attributes:
        unread: prompted frames that could not be read, and why; known after the first `find`.

    Raises:
        ValueError: as `propagate`.
    """

    def __init__(
        self,
        executor: Tracker,
        read: Callable[[int], Image],
        count: int,
        prompts: Sequence[ClipPrompt],
        settings: TrackSettings = DEFAULT_TRACKING,
    ) -> None:
        _check(prompts, count)
        self.unread: dict[int, str] = {}
        self._track = functools.partial(executor.track, settings)
        self._read = read
        self._prompts: dict[int, list[ClipPrompt]] = defaultdict(list)
        self._starts: dict[int, int] = {}
        for prompt in sorted(prompts, key=lambda one: one.frame):
            self._prompts[prompt.frame].append(prompt)
            self._starts.setdefault(prompt.tracker_id, prompt.frame)
        self._first, self._last = min(self._prompts), max(self._prompts)
        self._back: _Spool | None = None
        self._forward: _Pass | None = None
        self._next = self._first

    def __enter__(self) -> Propagation:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Go the way back, if it has not been gone; the first `find` does it too.

        Raises:
            ValueError: as `find`.
        """
        if self._back is None:
            self._back = self._go_back()

    def find(self, place: int, image: Image | None = None) -> Tracks:
        """Find the objects of one frame; quick in order, while a step back begins anew.

        Args:
            place: of the frame in the clip, from 0.
            image: the frame, where it has been read.

        Raises:
            ImageError: if it cannot be read.
            ValueError: if a prompt means nothing in its frame, or frames are of several sizes.
        """
        image = image or self._read(place)
        self.prepare()
        found = [] if place < self._first else [self._go_forward(place, image)]
        back = self._back.get(place) if self._back else None
        found += [] if back is None else [back]
        return _merge(found, place, self._starts) if found else no_tracks(image.hw)

    def close(self) -> None:
        """Free everything; the next `find` begins anew."""
        self._end_forward()
        if self._back is not None:
            self._back.close()
            self._back = None

    def _go_back(self) -> _Spool:
        """Follow objects from the last prompted frame to the first of all."""
        kept, going = _Spool(), _Pass(self._track(), self._prompts)
        try:
            for place, image in self._read_ahead(going, range(self._last, -1, -1)):
                kept.put(place, going.step(place, image))
        except BaseException:
            kept.close()
            raise
        finally:
            going.close()
        return kept

    def _go_forward(self, place: int, image: Image) -> _Found:
        """Follow objects on to a frame, also through those that nobody asks for."""
        if self._forward is None or place < self._next:
            self._end_forward()
            self._forward, self._next = _Pass(self._track(), self._prompts), self._first
        for skipped, between in self._read_ahead(self._forward, range(self._next, place)):
            self._forward.step(skipped, between)
            self._next = skipped + 1
        found = self._forward.step(place, image)
        self._next = place + 1
        return found

    def _end_forward(self) -> None:
        if self._forward is not None:
            self._forward.close()
            self._forward = None

    def _read_ahead(self, going: _Pass, places: Iterable[int]) -> Iterator[tuple[int, Image]]:
        """Read those of the frames that can be read, announcing each before its turn."""
        window: deque[tuple[int, Image]] = deque()
        for place in places:
            image = self._try_read(place)
            if image is not None:
                window.append((place, image))
            if image is not None and going.ahead:
                going.expect(image)
            if len(window) > going.ahead:
                yield window.popleft()
        yield from window

    def _try_read(self, place: int) -> Image | None:
        try:
            return self._read(place)
        except ImageError as error:
            if place in self._prompts:
                self.unread[place] = str(error)
            return None


@dataclass(frozen=True, eq=False)
class _Found:
    """The objects that one pass found on a frame, and how far away their prompts are."""

    tracks: Tracks
    distances: Mapping[int, int]


class _Pass:
    """One way through the clip."""

    def __init__(self, session: TrackSession, prompts: Mapping[int, Sequence[ClipPrompt]]) -> None:
        self._session = session
        self._prompts = prompts
        self._prompted: dict[int, int] = {}

    @property
    def ahead(self) -> int:
        """How many frames are worth announcing."""
        return self._session.ahead

    def expect(self, image: Image) -> None:
        """Announce a frame of this way."""
        self._session.expect(image)

    def step(self, place: int, image: Image) -> _Found:
        """Take the next frame of this way."""
        here = self._prompts.get(place, ())
        ids = [prompt.tracker_id for prompt in here]
        tracks = self._session.step(image, [prompt.prompt for prompt in here], ids)
        self._prompted.update(dict.fromkeys(ids, place))
        distances = {key: abs(place - start) for key, start in self._prompted.items()}
        return _Found(_without_logits(tracks), distances)

    def close(self) -> None:
        """Free the session."""
        self._session.close()


class _Spool:
    """What was found by frame, in a file without a name."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._places: dict[int, int] = {}

    def put(self, frame: int, found: _Found) -> None:
        """Add a frame."""
        self._places[frame] = self._file.tell()
        pickle.dump(found, self._file, pickle.HIGHEST_PROTOCOL)

    def get(self, frame: int) -> _Found | None:
        """Look up a frame; None if it was never added. After this nothing may be added."""
        if frame not in self._places:
            return None
        self._file.seek(self._places[frame])
        found: _Found = pickle.load(self._file)
        return found

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()


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


def _merge(found: Sequence[_Found], frame: int, starts: Mapping[int, int]) -> Tracks:
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
        return found[0].tracks  # no objects, of the frame's size
    score = np.concatenate([part.object_score for part in parts])
    states: list[TrackState] = [
        "new" if starts[key] == frame else "tracked" if value > 0 else "lost"
        for key, value in zip(order, score, strict=True)
    ]
    prediction = parts[0].prediction.concatenate([part.prediction for part in parts])
    return Tracks(prediction, np.array(order, np.int64), score, tuple(states))


def no_tracks(image_hw: Hw) -> Tracks:
    """No objects on a frame of this size."""
    masks = np.zeros((0, *image_hw), bool)
    return Tracks(masks_to_prediction(masks), np.zeros(0, np.int64), np.zeros(0, np.float32), ())


def _without_logits(tracks: Tracks) -> Tracks:
    """Leave out what is a hundred times as large as everything else."""
    nothing = np.zeros((len(tracks), 0, 0), np.float32)
    return replace(tracks, prediction=replace(tracks.prediction, low_res_logits=nothing))
