"""Where items come from and where results go: what a source, a sink and an exporter offer.

A source lists items lazily; a sink gets results one by one; neither knows the other, and what runs
between them (`sam2_blocks.runs.run`) knows no folder. A plugin brings its own by the hooks
`register_sources`, `register_sinks` and `register_exporters`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, runtime_checkable

from sam2_blocks.errors import PipelineError, Problem, UsageError
from sam2_blocks.files.claims import OutputFiles

if TYPE_CHECKING:
    from sam2_blocks.engine.plugins import Plugins
    from sam2_blocks.engine.records import ErrorRecord, Item, ItemResult
    from sam2_blocks.language.pipeline import Pipeline

ROUNDING_S = 1e-6  # of times that were computed


@dataclass(frozen=True)
class Exporter:
    """How the values of a kind are written.

    Attributes:
        suffix: what the files' names end with, such as ``.png``.
        write: ``write(value, file)`` writes one value to an open binary file. The file comes to
            its place when this returns, and nowhere if it raises.
        encode_each: the contents of the files of several values, one after the other, where making
            them together takes less time; each is what ``write`` writes.

    Example:
        >>> import io
        >>> exporter = Exporter(".txt", lambda value, file: file.writelines([str(value).encode()]))
        >>> file = io.BytesIO()
        >>> exporter.write(7, file)
        >>> file.getvalue()
        b'7'
    """

    suffix: str
    write: Callable[[Any, BinaryIO], None]
    encode_each: Callable[[Sequence[Any]], Iterator[bytes]] | None = None


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a video are items.

    Attributes:
        every: every n-th of them.
        start: first one: its number, or its time as ``12.5s``; None is the first of all.
        stop: the one after the last, likewise; None is to the end.
        as_video: whether a folder of pictures is a video, in natural order.
    """

    every: int = 1
    start: str | None = None
    stop: str | None = None
    as_video: bool = False

    def first(self, fps: float | None, times_s: Sequence[float] | None = None) -> int:
        """Number of the first frame.

        Args:
            fps: frames a second, if known.
            times_s: when each is shown, if known; else ``fps`` says it.

        Raises:
            UsageError: if ``start`` is a time, and nobody knows how many frames a second has.
        """
        return _frame_number(self.start, fps, "--from", times_s) or 0

    def last(self, fps: float | None, times_s: Sequence[float] | None = None) -> int | None:
        """Number after that of the last frame; None is to the end.

        Args:
            fps: as `first`.
            times_s: as `first`.

        Raises:
            UsageError: as `first`.
        """
        return _frame_number(self.stop, fps, "--to", times_s)


def _frame_number(
    text: str | None, fps: float | None, name: str, times_s: Sequence[float] | None
) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)s", text)
    if not found:
        raise UsageError(
            f"{name} wants a frame's number or seconds, such as 90 or 3.5s; got {text!r}"
        )
    if found[1]:
        return int(found[1])
    if times_s is not None:  # they need not be evenly spaced
        return bisect_left(times_s, float(found[2]) - ROUNDING_S)
    if not fps:
        raise UsageError(f"{name} {text}: nobody knows how long a frame is here; give its number")
    return round(float(found[2]) * fps)


@dataclass(frozen=True)
class Shard:
    """One of several runs that share the items of a source, every n-th each.

    Attributes:
        number: which, from 1.
        count: how many there are.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``3/16``.

        Raises:
            UsageError: if it is no shard.
        """
        number, _, count = text.partition("/")
        if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise UsageError(f"--shard wants i/n, from 1/n to n/n, such as 3/16; got {text!r}.")

    @property
    def name(self) -> str:
        """As it stands in names of files: ``3-of-16``."""
        return f"{self.number}-of-{self.count}"


@dataclass(frozen=True)
class RunRequest:
    """What somebody asked to be run; sources and sinks are opened for it.

    Attributes:
        pipeline: the checked graph.
        plugins: for the exporters.
        out: the folder or address of the results; None if they are only returned. Pictures in it
            are results, not inputs.
        settings: values of pipeline inputs that are the same for every item, as they were given.
        digest: of the pipeline as it was written; a run goes on only with the same.
        resume: go on with what an earlier run finished.
        names: what an item's results are called: by its id, or by the stem of it.
        max_pixels: largest picture read.
        frames: which frames of videos are items.
        pictures: how pictures that are outputs are written.
        value_range: values that are black and white in pictures of more than 8 bits; None finds
            them.
        form: a folder a picture, or Parquet parts.
        shard: the one that is run; None if all items are.
        batch_size: items of a micro-batch, whose results come at once.
    """

    pipeline: Pipeline
    plugins: Plugins
    out: Path | str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    resume: bool = False
    names: Literal["id", "stem"] = "id"
    max_pixels: int = 0
    frames: FrameChoice = FrameChoice()
    value_range: tuple[float, float] | None = None
    pictures: Literal["png", "jpg"] = "png"
    form: Literal["folder", "parquet"] = "folder"
    shard: Shard | None = None
    batch_size: int = 8

    @property
    def image_input(self) -> str:
        """The pipeline input that pictures go to.

        Raises:
            PipelineError: if the pipeline has not exactly one image input left to feed.
        """
        inputs = self.pipeline.inputs
        free = [
            name
            for name, declared in inputs.items()
            if "image" in declared.kinds and name not in self.settings
        ]
        free = [name for name in free if inputs[name].required] or free
        if len(free) != 1:
            got = " and ".join(map(repr, free)) or "none"
            message = f"wants one input of kind image for --input, got {got}; --set the others."
            raise PipelineError(self.pipeline.source, [Problem(message, "inputs")])
        return free[0]

    @property
    def clip_inputs(self) -> tuple[str, ...]:
        """The pipeline inputs that the whole clip of each frame goes to, if there are any."""
        return tuple(
            name
            for name, declared in self.pipeline.inputs.items()
            if "clip" in declared.kinds and name not in self.settings
        )


@runtime_checkable
class Source(Protocol):
    """Items of a run. Ids are unique, and the same when it is opened again."""

    @property
    def identity(self) -> str | None:
        """What a later run must have the same to go on with this one; None if it cannot."""
        ...

    @property
    def alone(self) -> bool:
        """Whether it is one item that was named itself, and never more."""
        ...

    @property
    def total(self) -> int | None:
        """Number of items; None if that is not known before they are listed."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What is to be told, such as how many files were left out and why; for people."""
        ...

    def items(self) -> Iterator[Item]:
        """List the items from the first on, without opening what they stand for."""
        ...


@runtime_checkable
class WritesTogether(Protocol):
    """A sink that takes the results of a micro-batch at once."""

    def write_all(self, results: Sequence[ItemResult]) -> None:
        """Take them as `Sink.write` would take each."""
        ...


class Sink(Protocol):
    """Gets the results of a run. ``begin`` is called first, ``end`` last if ``begin`` returned.

    Results come in the order of the items, from one thread at a time, which is not the one of
    ``begin`` and ``end``. They come a micro-batch at once, before the run gives the first of them
    to whoever iterates over it.
    """

    @property
    def files(self) -> OutputFiles:
        """Files that blocks write during the run; known after ``begin``."""
        ...

    @property
    def failed(self) -> Sequence[ErrorRecord]:
        """Items whose results could not be written; complete after ``end``."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What is to be told before anything runs; for people."""
        ...

    def begin(self, source: Source) -> Collection[str]:
        """Get ready, and return the ids of items that are done and are not to be run again.

        Raises:
            UsageError: if the results cannot go there.
        """
        ...

    def write(self, result: ItemResult) -> None:
        """Take one result; it may be written later.

        Raises:
            OSError: if nothing more can be written at all.
        """
        ...

    def end(self, *, complete: bool) -> None:
        """Write what is left.

        Args:
            complete: whether every item was run; False after an error or an interruption.
        """
        ...


SourceFactory = Callable[[str, RunRequest], "Source | None"]
"""``factory(text, request)``: the source that a text names; None if it is not of that form."""

SinkFactory = Callable[[RunRequest], "Sink | None"]
"""``factory(request)``: the sink that ``request.out`` names; None if it is not of that form."""
