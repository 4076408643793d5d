"""Videos, cameras and folders of frames → items, a frame each."""

from __future__ import annotations

import functools
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from sam2_blocks.clips import Clip
from sam2_blocks.engine.places import FrameChoice, RunRequest
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import ImageError, UsageError
from sam2_blocks.files.reading import file_stamp
from sam2_blocks.formats.clips import frame_id
from sam2_blocks.formats.images import split_frame
from sam2_blocks.formats.video import FrameReader, VideoFacts, decode_frames, read_facts
from sam2_blocks.runs.sources.folder import (
    VIDEO_SUFFIXES,
    PictureFiles,
    each_once,
    match_files,
    natural_key,
)
from sam2_blocks.values import Image, VideoFrame

LEAST_MISSING_S = 1.0
"""By how much a video may end early without a word: its last frame may be shown for a while."""

LIVE = re.compile(r"^(rtsps?|rtmps?|srt|udp|tcp)://|^/dev/video\d+$")


class VideoFrames:
    """The frames of one video file, each an item; decoded in order, when their batch comes.

    Args:
        path: the file.
        request: what they are for.
        facts: what `read_facts` said of it, if it was asked already.

    Attributes:
        identity: the file, absolute, and which of its frames; see `Source`.
        notes: that it seems to be cut short.

    Raises:
        UsageError: if it cannot be opened, or none of its frames are wanted.
        PipelineError: if the pipeline has not exactly one input that pictures can go to.
    """

    alone = False

    def __init__(self, path: Path, request: RunRequest, facts: VideoFacts | None = None) -> None:
        self._path = path
        self._input = request.image_input
        self._clip_inputs = request.clip_inputs
        try:
            self._facts = facts or read_facts(path)
        except ImageError as error:
            raise UsageError(str(error)) from error
        self._indices = choose_frames(request.frames, self._facts)
        if not self._indices:
            raise UsageError(
                f"{path}: none of its {self._facts.frames} frames are wanted; see --from, --to "
                "and --every."
            )
        self.identity = f"{os.path.abspath(path)} {self._indices}"
        self.notes = _notes_of(path, self._facts)

    @property
    def total(self) -> int:
        """Number of frames that are wanted."""
        return len(self._indices)

    def items(self) -> Iterator[Item]:
        """List the frames; see `Source`."""
        reader = FrameReader(self._path, self._path.name, self._facts.fps)
        stamp = file_stamp(self._path)
        clip = Clip(self._path.name, self._path, self._indices, fps=self._facts.fps)
        clips = dict.fromkeys(self._clip_inputs, clip)
        for index in self._indices:
            frame = frame_id(self._path.stem, index)
            read = functools.partial(reader.read, index, frame)
            path = str(self._path)
            yield Item(frame, {self._input: read, **clips}, stamp, group=path, source=path)


class VideoFiles:
    """The frames of all videos that a pattern names, one video after another.

    Args:
        pattern: what somebody gave.
        paths: the files that it matches.
        request: what they are for.

    Attributes:
        identity: the pattern, absolute, and which frames; see `Source`.
        notes: which videos have none of the frames that are wanted.

    Raises:
        UsageError: if results of two would be in one folder, or no frames are wanted.
        PipelineError: as `VideoFrames`.
    """

    alone = False

    def __init__(self, pattern: str, paths: Sequence[Path], request: RunRequest) -> None:
        self.identity = f"{os.path.abspath(pattern)} {request.frames}"
        self.notes: list[str] = []
        self._broken: list[Item] = []
        self._videos: list[VideoFrames] = []
        _check_stems(pattern, paths)
        for path in paths:
            self._take(path, request)
        if not self.total:
            raise UsageError(
                f"{pattern}: none of the frames are wanted; see --from, --to and --every."
            )

    @property
    def total(self) -> int:
        """Number of frames that are wanted, and of videos that cannot be opened."""
        return len(self._broken) + sum(video.total for video in self._videos)

    def items(self) -> Iterator[Item]:
        """List the frames; a video that cannot be opened is one item, which fails."""
        yield from self._broken
        for video in self._videos:
            yield from video.items()

    def _take(self, path: Path, request: RunRequest) -> None:
        try:
            facts = read_facts(path)
        except ImageError as error:
            read = functools.partial(_fail, error)
            clips = dict.fromkeys(request.clip_inputs, Clip(path.name, path, range(1)))
            inputs = {request.image_input: read, **clips}
            self._broken.append(Item(path.name, inputs, file_stamp(path), source=str(path)))
            return
        if choose_frames(request.frames, facts):
            self._videos.append(VideoFrames(path, request, facts))
            self.notes += self._videos[-1].notes
        else:
            self.notes.append(f"left out: {path}, none of whose frames are wanted")


class LiveFrames:
    """The frames of a camera or stream, each an item, until it ends or somebody interrupts.

    Args:
        address: such as ``rtsp://…`` or ``/dev/video0``.
        request: what they are for.

    Raises:
        UsageError: if the pipeline wants whole clips, which have an end.
    """

    identity = None
    alone = False
    total = None
    notes: Sequence[str] = ()

    def __init__(self, address: str, request: RunRequest) -> None:
        if request.clip_inputs:
            raise UsageError(
                f"{address}: the pipeline wants a whole clip as {request.clip_inputs[0]!r}, and "
                "this has no end. Record it, and give the file."
            )
        self._address = address
        self._input = request.image_input
        self._frames = request.frames

    def items(self) -> Iterator[Item]:
        """Take frames as they come; see `Source`."""
        choice = self._frames
        last = choice.last(None)
        end = 2**62 if last is None else last
        wanted = range(choice.first(None), end, choice.every)
        # The numbers come first: after the last one no further frame is waited for.
        for index, (found, time_s) in zip(range(end), decode_frames(self._address), strict=False):
            if index in wanted:
                frame = frame_id("live", index)
                read = functools.partial(self._give, found, frame, index, time_s)
                yield Item(frame, {self._input: read}, group="live", source=self._address)

    def _give(self, found: object, name: str, index: int, time_s: float | None) -> Image:
        if isinstance(found, ImageError):
            raise found
        return Image(found, name, video=VideoFrame(self._address, index, time_s))  # type: ignore[arg-type]


class FolderFrames:
    """Folders of pictures as videos: each folder one, its pictures in natural order the frames.

    A picture that moves is a video of its own.

    Args:
        inputs: folders, patterns or pictures that move.
        request: what they are for.
    """

    alone = False

    def __init__(self, inputs: Sequence[str], request: RunRequest) -> None:
        self._pictures = PictureFiles(inputs, request)
        self._request = request
        self._names = [Path(text).resolve().name for text in inputs if Path(text).is_dir()]
        self.identity = f"{self._pictures.identity} {request.frames}"
        chosen = self._chosen()
        if not chosen:
            raise UsageError(
                f"{', '.join(inputs)}: none of the frames are wanted; see --from, --to and --every."
            )
        self.total = len(chosen)

    @property
    def notes(self) -> Sequence[str]:
        """What was left out."""
        return self._pictures.notes

    def items(self) -> Iterator[Item]:
        """List the frames; see `Source`."""
        chosen = self._chosen()
        clips = self._clips(chosen)
        for item in self._pictures.items():
            if item.id in chosen:
                video, index = chosen[item.id]
                name = self._request.image_input
                read = functools.partial(_as_frame, item.inputs[name], VideoFrame(video, index))
                of_clip = dict.fromkeys(self._request.clip_inputs, clips[video])
                yield replace(item, inputs={name: read, **of_clip}, group=video)

    def _clips(self, chosen: Mapping[str, tuple[str, int]]) -> dict[str, Clip]:
        """The clips by name, each of the pictures that are wanted of it."""
        files: dict[str, dict[int, Path]] = {}
        for name, (video, index) in chosen.items():
            files.setdefault(video, {})[index] = self._pictures.pictures[name]
        return {
            video: Clip(
                video,
                next(iter(numbered.values())).parent,
                tuple(numbered),
                tuple(numbered.values()),
                value_range=self._request.value_range,
            )
            for video, numbered in files.items()
        }

    def _chosen(self) -> dict[str, tuple[str, int]]:
        """Video and number of each frame that is wanted, by item."""
        counts: Counter[str] = Counter()
        numbered = {}
        for name, path in self._pictures.pictures.items():
            video = self._video_of(name, path)
            numbered[name] = video, counts[video]
            counts[video] += 1
        wanted = {
            video: set(choose_frames(self._request.frames, VideoFacts(count, None)))
            for video, count in counts.items()
        }
        return {name: at for name, at in numbered.items() if at[1] in wanted[at[0]]}

    def _video_of(self, name: str, path: Path) -> str:
        if split_frame(path)[1] is not None:
            return name.rpartition("#")[0]
        parent = PurePosixPath(name).parent.as_posix()
        return parent if parent != "." else (self._names or ["frames"])[0]


def open_video(text: str, request: RunRequest) -> VideoFrames | VideoFiles | LiveFrames | None:
    """Open a text as a video or a camera, or as a pattern of videos; see `SourceFactory`.

    Args:
        text: a path of a video, a pattern of some, or the address of a stream.
        request: the run.

    Returns:
        Their frames as items; None if the text names no video.

    Raises:
        UsageError: if it is a video that cannot be opened, or a pattern of videos and others.
    """
    if LIVE.match(text):
        return LiveFrames(text, request)
    path = Path(text)
    if not path.exists() and glob.has_magic(text):
        return _open_pattern(text, request)
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        return VideoFrames(path, request)
    return None


def _open_pattern(pattern: str, request: RunRequest) -> VideoFiles | None:
    matches = each_once(match_files(pattern))
    videos = [path for path in matches if path.suffix.lower() in VIDEO_SUFFIXES]
    if not videos:
        return None
    if others := len(matches) - len(videos):
        raise UsageError(
            f"{pattern}: matches {len(videos)} videos and {others} other files; "
            f"give a pattern for each sort, such as '*{videos[0].suffix}'."
        )
    return VideoFiles(pattern, sorted(videos, key=natural_key), request)


def _check_stems(pattern: str, paths: Sequence[Path]) -> None:
    """Refuse videos whose results would have the same names."""
    first: dict[str, Path] = {}
    for path in paths:
        if first.setdefault(path.stem, path) != path:
            raise UsageError(
                f"{pattern}: results are named like their video, and {first[path.stem]} and {path} "
                "would be mixed. Run them one by one, each with an --out of its own."
            )


def _fail(error: ImageError) -> Image:
    raise error


def choose_frames(choice: FrameChoice, facts: VideoFacts) -> range:
    """Number the frames that are wanted of a video.

    Args:
        choice: which of them.
        facts: how many frames there are, how many a second, and when each is shown.

    Raises:
        UsageError: if a time is given, and the frame rate is unknown.
    """
    last = choice.last(facts.fps, facts.times_s)
    stop = facts.frames if last is None else min(last, facts.frames)
    return range(choice.first(facts.fps, facts.times_s), stop, choice.every)


def _notes_of(path: Path, facts: VideoFacts) -> list[str]:
    """Say that a file seems to be cut short, which no decoder does."""
    last_s = facts.times_s[-1] if facts.times_s else 0.0
    if facts.missing_s <= max(LEAST_MISSING_S, last_s / 20):
        return []
    return [
        f"{path}: ends after {last_s:.1f} s, and says that it is {facts.missing_s:.1f} s longer; "
        "is it cut short?"
    ]


def _as_frame(read: Callable[[], Image], frame: VideoFrame) -> Image:
    return replace(read(), video=frame)
