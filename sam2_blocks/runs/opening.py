"""What somebody names as inputs and as output → a source and a sink; plugins are asked first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from sam2_blocks.engine.places import RunRequest, Sink, Source, SourceFactory
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import UsageError, foreign_code
from sam2_blocks.files.claims import JOURNAL_FILE
from sam2_blocks.runs.shards import MANIFEST
from sam2_blocks.runs.sinks.folder import FolderSink
from sam2_blocks.runs.sinks.parquet import ParquetSink
from sam2_blocks.runs.sources.addresses import is_remote
from sam2_blocks.runs.sources.coco import CocoItems, open_coco
from sam2_blocks.runs.sources.folder import PictureFiles
from sam2_blocks.runs.sources.lists import PictureList, open_list
from sam2_blocks.runs.sources.remote import open_remote
from sam2_blocks.runs.sources.shards import TarShards, open_shards
from sam2_blocks.runs.sources.tables import READERS, open_table
from sam2_blocks.runs.sources.values import Values, is_picture
from sam2_blocks.runs.sources.video import FolderFrames, VideoFrames, open_video

FORMS: tuple[SourceFactory, ...] = (
    open_list,
    open_table,
    open_coco,
    open_shards,
    open_video,
    open_remote,
)
"""Sources that know by an address whether they read it."""

BY_NAME: Mapping[str, SourceFactory] = {
    "list": PictureList,
    "table": open_table,
    "coco": lambda text, request: CocoItems(Path(text), request),
    "tar": TarShards,
    "video": lambda text, request: VideoFrames(Path(text), request),
}
"""Sources that are asked for as ``NAME:ADDRESS``, whatever the address looks like."""


class Chain:
    """Several sources one after another.

    Args:
        sources: at least one.
    """

    alone = False

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    @property
    def identity(self) -> str | None:
        """All of them, if all have one."""
        parts = [source.identity for source in self._sources]
        return None if None in parts else ", ".join(map(str, parts))

    @property
    def total(self) -> int | None:
        """The sum, if all are known."""
        totals = [source.total for source in self._sources]
        known = [total for total in totals if total is not None]
        return sum(known) if len(known) == len(totals) else None

    @property
    def notes(self) -> list[str]:
        """Those of all."""
        return [note for source in self._sources for note in source.notes]

    def items(self) -> Iterator[Item]:
        """List the items of one source after another."""
        return chain.from_iterable(source.items() for source in self._sources)


def open_source(inputs: Any, request: RunRequest) -> Source:
    """Open what somebody gave as inputs.

    Args:
        inputs: whatever `sam2_blocks.run_pipeline` takes.
        request: the run.

    Returns:
        The items, none of them opened yet.

    Raises:
        UsageError: if there is nothing, or nothing that can be an input.
        PipelineError: if the pipeline has not one input that pictures can go to.
    """
    if isinstance(inputs, str | Path):
        return _open_texts([str(inputs)], request)
    if is_picture(inputs) or isinstance(inputs, Mapping | Item):
        return Values([inputs], request, alone=True)
    if isinstance(inputs, Source):
        return inputs
    if isinstance(inputs, list | tuple) and inputs and all(_is_path(value) for value in inputs):
        return _open_texts([str(value) for value in inputs], request)
    try:
        iter(inputs)
    except TypeError:
        raise UsageError(
            "inputs: wants paths, pictures, items, or an iterable of them, got "
            f"{type(inputs).__name__}."
        ) from None
    return Values(inputs, request)


def open_sink(out: str | Path | Sink | None, request: RunRequest) -> Sink | None:
    """Open where results go.

    Args:
        out: a folder, a URL or a sink; None if results are only returned.
        request: the run.

    Returns:
        The sink, not begun yet; None if results go nowhere.

    Raises:
        UsageError: if a step writes files and there is no place for them, or the folder holds
            results of the other form.
    """
    if out is None:
        writing = [s for s in request.pipeline.steps if s.manifest.file_access == "write"]
        if writing or request.resume:
            what = f"step {writing[0].id!r} writes files" if writing else "resume is for a folder"
            raise UsageError(f"{what}: say where, with out=.")
        return None
    if not isinstance(out, str | Path):
        return out
    with foreign_code():
        for factory in request.plugins.sinks.values():
            if sink := factory(request):
                return sink
    return _open_own(out, request)


def _open_own(out: str | Path, request: RunRequest) -> Sink:
    """Open a folder or a store of ours, in the form that is there already."""
    if request.form == "folder":
        if holds_parts(out):
            raise UsageError(
                f"{out}: holds Parquet parts, and a folder a picture is not mixed with them. "
                "Choose another --out, or go on with --format parquet."
            )
        return FolderSink(Path(out), request)
    if not is_remote(str(out)) and (Path(out) / JOURNAL_FILE).exists():
        raise UsageError(
            f"{out}: holds a folder a picture, and Parquet parts are not mixed with them. Choose "
            "another --out, or leave out --format parquet, --shard and --on ray."
        )
    return ParquetSink(request)


def holds_parts(out: object) -> bool:
    """Whether this is a folder of this machine with Parquet parts of a run."""
    if not isinstance(out, str | Path) or is_remote(str(out)):
        return False
    return any(MANIFEST.fullmatch(path.name) for path in Path(out).glob("manifest-*.json"))


def _open_texts(texts: Sequence[str], request: RunRequest) -> Source:
    """Ask who reads each text; what nobody else does is files, folders and patterns."""
    sources: list[Source] = []
    files: list[str] = []
    for text in texts:
        source = _open_text(text, request)
        if source is None:
            files.append(text)
        else:
            sources.append(source)
    if files:
        _refuse_clips(files, request)
        pictures = FolderFrames if request.frames.as_video else PictureFiles
        sources.insert(0, pictures(files, request))
    return sources[0] if len(sources) == 1 else Chain(sources)


def _refuse_clips(files: Sequence[str], request: RunRequest) -> None:
    """Refuse pictures where the pipeline wants whole clips."""
    if request.clip_inputs and not request.frames.as_video:
        raise UsageError(
            f"{files[0]}: the pipeline wants a whole clip as {request.clip_inputs[0]!r}. Give a "
            "video, or a folder of its frames with --as-video."
        )


def _open_text(text: str, request: RunRequest) -> Source | None:
    name, colon, address = text.partition(":")
    if colon and name in BY_NAME and not Path(text).exists():
        source = BY_NAME[name](address, request)
        if source is None:
            endings = ", ".join(READERS)
            raise UsageError(f"{text}: a {name} ends in one of {endings}, got {address!r}.")
        return source
    factories = (*request.plugins.sources.values(), *FORMS)
    opened = (factory(text, request) for factory in factories)
    with foreign_code():
        return next((found for found in opened if found is not None), None)


def _is_path(value: object) -> bool:
    return isinstance(value, str | Path)
