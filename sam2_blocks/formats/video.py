"""Videos: frames out of any container that PyAV opens, and pictures into one."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sam2_blocks.errors import ImageError
from sam2_blocks.forks import after_fork
from sam2_blocks.values import Image, UInt8Array, VideoFrame

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.video.frame import VideoFrame as AvFrame

MOST_WAITING = 32  # decoded frames that nobody has asked for yet
CODECS = ("libx264", "libopenh264", "h264_videotoolbox", "mpeg4")
"""H.264 where there is an encoder for it, the first that is there."""
OTHER_CODECS = {".webm": ("libvpx-vp9", "libvpx"), ".webp": ("libwebp_anim",)}
"""Encoders of containers that take no H.264; a .webp is a picture that moves, over and over."""
ENDINGS = ".mp4, .mkv, .mov, .avi, .webm or .webp"
FORMATS = {".mkv": "matroska", ".m4v": "mp4"}
"""Names of containers that are not those of their endings."""
DEFAULT_FPS = Fraction(25)
TICK_S = Fraction(1, 60000)  # of written times: what 24, 25, 30, 29.97 and 60 fps are multiples of
MOST_SILENT_S = 20.0  # that an address may stay silent when it is opened, and between two frames

_of_parents: list[object] = []  # closing a decoder waits for its threads, which no fork has

Decoded = tuple[UInt8Array | ImageError, float | None]
"""A frame or why it cannot be decoded, and its time in seconds."""


@dataclass(frozen=True)
class VideoFacts:
    """What a container says of its first video stream.

    Attributes:
        frames: how many packets it has, usually one a frame.
        fps: frames a second on average, if known.
        times_s: when each is shown, in seconds from the first one; None if not all are known.
        missing_s: seconds by which it ends before its container says; 0 if nobody can tell.
    """

    frames: int
    fps: float | None
    times_s: Sequence[float] | None = None
    missing_s: float = 0.0


def read_facts(path: str | Path) -> VideoFacts:
    """Count the frames of a video without decoding them.

    Raises:
        ImageError: if PyAV does not open it, or there is no video in it.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        marks = [packet.pts for packet in container.demux(stream) if packet.size > 0]
        rate = stream.average_rate
        times_s = _times_of(marks, stream.time_base)
        end_s = times_s[-1] + float(1 / rate if rate else 0) if times_s else 0.0
        missing_s = max(0.0, _promised_s(container) - end_s) if times_s else 0.0
        return VideoFacts(len(marks), float(rate) if rate else None, times_s, missing_s)


def _promised_s(container: InputContainer) -> float:
    """How long the container says that its video is; 0 if it does not."""
    stream = container.streams.video[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    only = len(container.streams) == 1  # else it may be that of the sound
    return container.duration / 1e6 if only and container.duration else 0.0


def _times_of(marks: Sequence[int | None], base: Fraction | None) -> Sequence[float] | None:
    """Times in the order of showing, which is not that of the packets."""
    known = sorted(mark for mark in marks if mark is not None)
    if not known or base is None or len(known) < len(marks):
        return None
    return array("d", (float((mark - known[0]) * base) for mark in known))


def decode_frames(path: str | Path) -> Iterator[Decoded]:
    """Decode a video from its first frame on, one frame at a time.

    Args:
        path: a file, or an address that PyAV opens, such as of a camera.

    Yields:
        uint8 (H, W, 3) RGB, upright, or why this frame cannot be decoded; and its time in seconds.
        Where the container breaks off, or an address falls silent, that is the last.

    Raises:
        ImageError: if PyAV does not open it, or there is no video in it.
    """
    import av

    with _open(path) as container:
        stream = container.streams.video[0]
        # With a thread for each frame, what follows a damaged one near the end is lost.
        stream.thread_type = "SLICE"
        packets = iter(container.demux(stream))
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                yield ImageError(f"{path}: breaks off here: {_reason(error)}"), None
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                yield ImageError(f"{path}: cannot be decoded here: {_reason(error)}"), None
                continue
            for frame in frames:
                yield _upright(frame), frame.time


class FrameReader:
    """Reads frames of one video by number; in their order each is decoded once.

    Threads may share it; a forked child opens the file again. Frames that were decoded on the way
    to another one wait for a while.

    Args:
        path: the video.
        video_id: what to call it.
        fps: frames a second, if known.
        waiting_bytes: of frames that wait, beyond the `MOST_WAITING` that always may.
    """

    def __init__(
        self,
        path: str | Path,
        video_id: str,
        fps: float | None = None,
        *,
        waiting_bytes: int = 0,
    ) -> None:
        self._path = path
        self._video_id = video_id
        self._fps = fps
        self._waiting_bytes = waiting_bytes
        self._start_afresh()
        after_fork(self._leave_to_parent)

    def _leave_to_parent(self) -> None:
        """Open the file again, whose place is shared with the parent, as soon as it is wanted."""
        _of_parents.append(self._frames)
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._frames: Iterator[Decoded] | None = None
        self._next = 0
        self._waiting: OrderedDict[int, Decoded] = OrderedDict()

    def read(self, index: int, image_id: str) -> Image:
        """Read one frame.

        Raises:
            ImageError: if it cannot be decoded, or the video ends before it.
        """
        with self._lock:
            found, time_s = self._find(index)
        if isinstance(found, ImageError):
            raise ImageError(f"frame {index} of {found}")
        return Image(found, image_id, video=VideoFrame(self._video_id, index, time_s, self._fps))

    def close(self) -> None:
        """Close the file; reading opens it again."""
        with self._lock:
            self._frames, self._next = None, 0
            self._waiting.clear()

    def _find(self, index: int) -> Decoded:
        if index in self._waiting:
            return self._waiting.pop(index)
        if self._frames is None or index < self._next:
            self._frames, self._next = decode_frames(self._path), 0
            self._waiting.clear()
        for found in self._frames:
            self._next += 1
            if self._next > index:
                return found
            self._waiting[self._next - 1] = found
            if len(self._waiting) > self._may_wait(found[0]):
                self._waiting.popitem(last=False)
        return ImageError(f"{self._path}: the video ends after {self._next} frames"), None

    def _may_wait(self, frame: UInt8Array | ImageError) -> int:
        """How many frames like this one may wait."""
        if isinstance(frame, ImageError):
            return MOST_WAITING
        return max(MOST_WAITING, self._waiting_bytes // frame.nbytes)


class VideoFile:
    """Writes pictures of one size into a video, without sound.

    Args:
        file: where to write.
        ending: names the container, such as ``.mp4``; that of ``file`` if not given.
        fps: frames a second, where their times are not given.
        codec: name of an encoder; the best there is for H.264 if not given.
    """

    def __init__(
        self,
        file: Path,
        *,
        fps: float | None = None,
        codec: str | None = None,
        ending: str | None = None,
    ) -> None:
        self._file = file
        self._ending = (ending or file.suffix).lower()
        self._rate = Fraction(fps).limit_denominator(65535) if fps else DEFAULT_FPS
        self._codec = codec
        self._container: Any = None
        self._stream: Any = None
        self._hw = (0, 0)
        self._clock: _Clock | None = None

    def add(self, pixels: UInt8Array, time_s: float | None = None) -> None:
        """Append a picture, uint8 (H, W, 3) RGB; an odd row or column at the end is left out.

        Args:
            pixels: the picture.
            time_s: when it is shown, counted from anywhere; where it is not known, goes back, or
                the container has no times of its own, as long after the last one as `fps` says.

        Raises:
            ValueError: if it has another size than the first, or there is no such encoder.
        """
        import av

        height, width = (side - side % 2 for side in pixels.shape[:2])
        if self._container is None:
            self._begin(height, width, timed=time_s is not None)
        if (height, width) != self._hw:
            raise ValueError(
                f"{self._file}: a picture of {width}x{height} does not fit a video of "
                f"{self._hw[1]}x{self._hw[0]}. Write videos of several sizes into several files."
            )
        even = np.ascontiguousarray(pixels[:height, :width])
        frame = av.VideoFrame.from_ndarray(even, format="rgb24")
        if self._clock:
            frame.pts, frame.time_base = self._clock.mark(time_s), TICK_S
        self._container.mux(self._stream.encode(frame))

    def close(self) -> bool:
        """Finish the file; whether there is one, which there is not without a picture."""
        if self._container is None:
            return False
        self._container.mux(self._stream.encode())
        self._container.close()
        self._container = None
        return True

    def _begin(self, height: int, width: int, *, timed: bool) -> None:
        if not (height and width):
            raise ValueError(f"{self._file}: a video wants pictures of 2x2 pixels or more")
        codec = self._choose_codec()
        container = self._open_container()
        try:
            stream = self._add_stream(container, codec, timed=timed)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            container.start_encoding()
        except (ValueError, OSError) as error:
            container.close()
            self._file.unlink(missing_ok=True)
            raise ValueError(
                f"{codec} cannot be written into a {self._ending} here ({_reason(error)}); leave "
                f"'codec' out, and choose {ENDINGS}"
            ) from error
        self._container, self._stream, self._hw = container, stream, (height, width)

    def _open_container(self) -> OutputContainer:
        import av

        form = FORMATS.get(self._ending, self._ending.lstrip("."))
        options = {"loop": "0"} if self._ending == ".webp" else {}
        try:
            return av.open(str(self._file), "w", format=form, options=options)
        except ValueError as error:
            raise ValueError(f"no video ends in {self._ending!r}; choose {ENDINGS}") from error

    def _add_stream(self, container: OutputContainer, codec: str, *, timed: bool) -> Any:
        stream: Any = container.add_stream(codec, rate=self._rate)
        if timed and _has_times(container):
            stream.codec_context.time_base = TICK_S
            # With frames out of order, a video that ends in a long one is said to end before it.
            stream.codec_context.max_b_frames = 0
            self._clock = _Clock(self._rate)
        return stream

    def _choose_codec(self) -> str:
        import av

        usual = OTHER_CODECS.get(self._ending, CODECS)
        here = (name for name in usual if name in av.codecs_available)
        codec = self._codec or next(here, usual[0])
        if codec not in av.codecs_available:
            raise ValueError(
                f"there is no encoder {codec!r} here; leave 'codec' out for {usual[0]}"
            )
        return codec


def _has_times(container: OutputContainer) -> bool:
    """Whether each frame may be shown as long as it likes."""
    from av.format import Flags

    return Flags.variable_fps in Flags(container.format.flags)


class _Clock:
    """Turns times of pictures into marks that rise, from 0, in `TICK_S`.

    Args:
        rate: pictures a second, where their times do not say.
    """

    def __init__(self, rate: Fraction) -> None:
        self._usual = max(1, round(1 / (rate * TICK_S)))
        self._last = -self._usual
        self._zero_s: float | None = None
        self._last_s = 0.0

    def mark(self, time_s: float | None) -> int:
        """Say when the next picture is shown."""
        usual = self._last + self._usual
        if time_s is None:
            mark = usual
        elif self._zero_s is None or time_s <= self._last_s:  # it begins, or begins anew
            self._zero_s, mark = time_s - float(usual * TICK_S), usual
        else:
            mark = max(self._last + 1, round((time_s - self._zero_s) / TICK_S))
        self._last, self._last_s = mark, self._last_s if time_s is None else time_s
        return mark


def _open(path: str | Path) -> InputContainer:
    import av

    name = str(path)
    camera = "v4l2" if name.startswith("/dev/video") else None
    # A packet of UDP that is lost spoils frames; whoever serves no TCP is asked for UDP next.
    options = {"rtsp_flags": "prefer_tcp"} if name.startswith("rtsp") else {}
    patience = MOST_SILENT_S if "://" in name else None
    try:
        container = av.open(name, format=camera, options=options, timeout=patience)
    except (av.error.FFmpegError, OSError) as error:
        raise ImageError(
            f"{path}: is no video that can be opened here: {_reason(error)}"
        ) from error
    if not container.streams.video:
        container.close()
        raise ImageError(f"{path}: there is no video in it, only other streams")
    return container


def _reason(error: Exception) -> str:
    """Say why PyAV gave up; when it lost patience it only says that it was told to stop."""
    import av

    if isinstance(error, av.error.ExitError):
        return f"nothing came for {MOST_SILENT_S:g} s"
    return getattr(error, "strerror", None) or str(error)  # without a number that nobody knows


def _upright(frame: AvFrame) -> UInt8Array:
    """Turn a frame as its container says it is to be shown."""
    pixels = cast(UInt8Array, frame.to_ndarray(format="rgb24"))
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
