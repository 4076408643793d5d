"""A whole run: a source, a pipeline and a sink, with results one by one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from sam2_blocks.clock import Clock
from sam2_blocks.engine.intake import name_failures
from sam2_blocks.engine.places import (
    FrameChoice,
    RunRequest,
    Shard,
    Sink,
    Source,
    WritesTogether,
)
from sam2_blocks.engine.plugins import Plugins, load_plugins
from sam2_blocks.engine.records import ErrorRecord, Item, ItemResult
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.runner import Runner
from sam2_blocks.errors import UsageError, did_you_mean, foreign_code
from sam2_blocks.files.atomic import json_text
from sam2_blocks.formats.images import MAX_PIXELS
from sam2_blocks.heap import give_back
from sam2_blocks.language.constants import checked_inputs, wrong_constants
from sam2_blocks.language.pipeline import Pipeline
from sam2_blocks.runs.flight import Flight, HasFlightNote
from sam2_blocks.runs.opening import holds_parts, open_sink, open_source
from sam2_blocks.runs.shards import ShardOf
from sam2_blocks.runs.sinks.earlier import two_items
from sam2_blocks.runs.sources.addresses import is_remote
from sam2_blocks.turns import short_turns

ALL_FRAMES = FrameChoice()
CHOICES: dict[str, tuple[str | None, ...]] = {
    "names": ("id", "stem"),
    "pictures": ("png", "jpg"),
    "form": (None, "folder", "parquet"),
}
TYPES = {"plugins": Plugins, "resources": Resources, "settings": Mapping, "shard": str}
ITEMS_BETWEEN = 32
"""Items after which the heap gives free memory back."""


def run_pipeline(
    pipeline: str | Path | Mapping[str, Any] | Pipeline,
    inputs: Any,
    *,
    out: str | Path | Sink | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    names: Literal["id", "stem"] = "id",
    batch_size: int = 8,
    max_pixels: int = MAX_PIXELS,
    frames: FrameChoice = ALL_FRAMES,
    value_range: tuple[float, float] | None = None,
    pictures: Literal["png", "jpg"] = "png",
    form: Literal["folder", "parquet"] | None = None,
    shard: str | None = None,
    retry_set_aside: bool = False,
    plugins: Plugins | None = None,
    resources: Resources | None = None,
) -> Run:
    """Run a pipeline on pictures; results come one by one, and go into a folder if one is given.

    Everything is checked before this returns; models load when the first result is asked for.

    Args:
        pipeline: a YAML file, the same as plain data, or a pipeline that is loaded.
        inputs: a picture, as a path, an `Image`, an RGB array or a Pillow picture; a folder or a
            pattern of pictures; a video or a camera, each frame an item; an iterable of pictures,
            of mappings of pipeline inputs, or of `Item` objects, which is read as the run goes on;
            or a source.
        out: the folder that results are written to, or a sink; None only returns them.
        settings: values of pipeline inputs that are the same for all items, by name.
        resume: go on where an earlier run into ``out`` stopped: its finished items are skipped.
        names: what the results of an item are called in ``out``: ``id``, or ``stem`` for the id
            without its suffix.
        batch_size: items per micro-batch.
        max_pixels: largest picture read.
        frames: which frames of a video to run, and whether folders are videos.
        value_range: values that are black and white in pictures of more than 8 bits; those that
            their values suggest if not given.
        pictures: how pictures that are outputs are written: ``png`` is exact, ``jpg`` small.
        form: ``folder`` writes a folder an item, ``parquet`` parts of a table with a row an item,
            which is for many items, and for URLs and shards, where it is what is done by itself,
            as it is where ``out`` holds parts already.
        shard: ``3/16`` runs every 16th item, from the third on, and writes parts of its own; a
            group, such as a video, is in one shard.
        retry_set_aside: with ``resume``, run those again that killed the process twice and are set
            aside.
        plugins: where blocks come from; all that are installed if not given.
        resources: models to share with other runs; new ones if not given.

    Returns:
        The run, to be iterated over for an `ItemResult` an item, also for those that failed; all
        is written when it ends. Use it in a ``with`` statement if you may stop early.

    Raises:
        PipelineError: if the pipeline is wrong, or not all of its inputs are given.
        UsageError: if there is no such input, or ``out`` holds results of another run.

    Example:
        >>> from sam2_blocks import run_pipeline
        >>> for result in run_pipeline("examples/points.yaml", "examples/pictures/astronaut.jpg"):
        ...     print(result.id, len(result.outputs["predictions"]))
        astronaut.jpg 3
    """
    _check_given(
        out, names=names, pictures=pictures, form=form, plugins=plugins, resources=resources,
        settings=settings, shard=shard,
    )  # fmt: skip
    plugins = plugins or load_plugins()
    graph = pipeline if isinstance(pipeline, Pipeline) else plugins.load_pipeline(pipeline)
    request = RunRequest(
        pipeline=graph,
        plugins=plugins,
        out=_place(out),
        settings=dict(settings or {}),
        digest=_digest(pipeline, graph),
        resume=resume,
        names=names,
        max_pixels=max_pixels,
        frames=frames,
        value_range=value_range,
        pictures=pictures,
        form=_form(form, shard, out),
        shard=Shard.parse(shard) if shard else None,
        batch_size=batch_size,
    )
    _check_settings(request)
    sink = open_sink(out, request)
    # The files are this run's; what others keep of pictures is not for it to forget.
    own = (resources or plugins.resources(pictures_pass=True)).of_a_run()
    runner = Runner(graph, plugins, resources=own, batch_size=batch_size)
    source = open_source(inputs, request)
    if request.shard:
        source = ShardOf(source, request.shard)
    return Run(request, source, sink, runner, window=batch_size, retry=retry_set_aside)


class Run(Iterator[ItemResult]):
    """One run on its way: iterate over it for the results.

    Attributes:
        errors: why items failed so far, or were not written; complete when the run has ended.
        done_before: number of items that an earlier run finished; known once this one has begun.
        clock: where the time goes.
    """

    def __init__(
        self,
        request: RunRequest,
        source: Source,
        sink: Sink | None,
        runner: Runner,
        *,
        window: int = 1,
        retry: bool = False,
    ) -> None:
        self.errors: list[ErrorRecord] = []
        self.done_before = 0
        self.clock = Clock()
        self._request = request
        self._source = source
        self._sink = sink
        self._runner = runner
        self._window = window
        self._retry = retry
        self._under_way: dict[str, Item] = {}
        self._settled = 0
        self._results: Generator[ItemResult, None, None] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether this run has taken hold of where its results go."""
        return self._results is not None

    @property
    def pipeline(self) -> Pipeline:
        """The checked graph."""
        return self._request.pipeline

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by stage so far, of all threads; see `Clock`."""
        return self.clock.seconds

    @property
    def total(self) -> int | None:
        """Number of items to run; None if it is not known."""
        total = self._source.total
        return None if total is None else total - self.done_before

    @property
    def notes(self) -> list[str]:
        """What is to be told to people, such as how many files were left out and why."""
        return [*self._source.notes, *(self._sink.notes if self._sink else ())]

    def begin(self) -> None:
        """Take hold of where the results go, and see what is done; the first result does it too.

        Raises:
            UsageError: if the results cannot go there.
        """
        if self._results is None:
            with foreign_code():  # a sink may be a plugin's
                done = self._sink.begin(self._source) if self._sink else ()
            self.done_before = len(done)
            self._results = self._work(done)
            next(self._results)  # up to where closing it lets go again

    def close(self) -> None:
        """End the run; what is finished is written."""
        if self._results is not None:
            with self.clock.running():
                self._results.close()

    def __next__(self) -> ItemResult:
        self.begin()
        assert self._results is not None
        with self.clock.running():
            return next(self._results)

    def __enter__(self) -> Run:
        self.begin()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _work(self, done: Collection[str]) -> Generator[Any, None, None]:
        complete = False
        flight = self._open_flight()
        try:
            yield None
            flight.begin()
            with self._runner as runner, short_turns():
                if self._sink:
                    runner.resources.files = self._sink.files
                yield from self._run_all(runner, flight, done)
            complete = True
        finally:
            flight.end()
            if self._sink:
                with ExitStack() as stack:
                    stack.callback(lambda sink: self.errors.extend(sink.failed), self._sink)
                    with foreign_code():
                        self._sink.end(complete=complete)

    def _open_flight(self) -> Flight:
        place = self._sink.flight_note if isinstance(self._sink, HasFlightNote) else None
        if self._source.identity is None:
            place = None
        resume = self._request.resume
        return Flight(place, resume=resume, window=self._window, retry=self._retry)

    def _run_all(
        self, runner: Runner, flight: Flight, done: Collection[str]
    ) -> Iterator[ItemResult]:
        """Results of all items; those that may have killed a process come last, one by one."""
        for result in runner.run(flight.note(self._items(done)), self._settle):
            flight.land(result.id)
            yield result
        for held in flight.held():
            if isinstance(held, ItemResult):
                yield from self._settle([held])
            else:
                yield from runner.run([held], self._settle)

    def _settle(self, found: Sequence[ItemResult]) -> list[ItemResult]:
        """Give the results of a micro-batch to the sink, as soon as they are there."""
        results = [replace(one, item=self._under_way.pop(one.id)) for one in found]
        self.errors += [error for result in results for error in result.errors]
        if self._sink:
            with foreign_code():
                _write_all(self._sink, results)
        before, self._settled = self._settled, self._settled + len(results)
        if before // ITEMS_BETWEEN < self._settled // ITEMS_BETWEEN:
            give_back()
        return results

    def _items(self, done: Collection[str]) -> Iterator[Item]:
        checked = _name_check(self._request)
        seen: set[str] = set()
        for place, item in enumerate(name_failures(self._source.items())):
            if item.id in seen:
                raise UsageError(two_items(item.id))
            seen.add(item.id)
            if item.id not in done:
                place = place if item.place is None else item.place
                self._under_way[item.id] = replace(item, inputs={}, place=place)
                inputs = {**self._request.settings, **checked(item.inputs)}
                yield replace(item, inputs=inputs, place=place, own=frozenset(item.inputs))


def _write_all(sink: Sink, results: Sequence[ItemResult]) -> None:
    if isinstance(sink, WritesTogether):
        sink.write_all(results)
        return
    for result in results:
        sink.write(result)


def _check_given(out: object, **given: object) -> None:
    for name, choices in CHOICES.items():
        if given[name] not in choices:
            wanted = " or ".join(map(repr, choices))
            raise UsageError(f"{name} wants {wanted}, got {given[name]!r}.")
    for name, kind in TYPES.items():
        if given[name] is not None and not isinstance(given[name], kind):
            raise UsageError(f"{name} wants a {kind.__name__}, got {given[name]!r}.")
    if not (out is None or isinstance(out, str | Path) or hasattr(out, "begin")):
        raise UsageError(f"out wants the path of a folder, or a sink, got {out!r}.")


def _place(out: str | Path | Sink | None) -> Path | str | None:
    if isinstance(out, str) and is_remote(out):
        return out
    return Path(out) if isinstance(out, str | Path) else None


def _form(
    form: Literal["folder", "parquet"] | None, shard: str | None, out: object
) -> Literal["folder", "parquet"]:
    by_itself = shard is not None or (isinstance(out, str) and is_remote(out))
    if form == "folder" and by_itself:
        raise UsageError("shards, and results that go to a URL, are written as Parquet alone.")
    return form or ("parquet" if by_itself or holds_parts(out) else "folder")


def _check_settings(request: RunRequest) -> None:
    inputs = request.pipeline.inputs
    for name in request.settings:
        if name not in inputs:
            raise UsageError(
                f"settings: the pipeline has no input {name!r}.{did_you_mean(name, inputs)}"
            )
    checks = request.plugins.model_names.checks
    for name, wrong in wrong_constants(request.pipeline, request.settings, checks):
        raise UsageError(f"input {name!r}, {wrong}")


def _name_check(request: RunRequest) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Make what lets names that nobody knows, such as of a model, fail the item they come with.

    A step would end the run: that a model cannot be loaded is mostly no matter of one item.
    """
    checks = request.plugins.model_names.checks
    names = checked_inputs(request.pipeline, checks)

    @functools.lru_cache(maxsize=256)
    def why_wrong(name: str, text: str) -> str:
        return next((why for _, why in wrong_constants(request.pipeline, {name: text}, checks)), "")

    def check(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        texts = {name: inputs[name] for name in names & inputs.keys()}
        found = {n: why_wrong(n, text) for n, text in texts.items() if isinstance(text, str)}
        wrong = {name: functools.partial(_raise, why) for name, why in found.items() if why}
        return {**inputs, **wrong} if wrong else inputs

    return check


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _digest(given: object, graph: Pipeline) -> str:
    """What tells one pipeline from another, as it was written."""
    if isinstance(given, Mapping):
        return hashlib.sha256(json_text(given).encode()).hexdigest()
    files = graph.files or (Path(graph.source),)
    if not all(file.is_file() for file in files):
        return ""
    digest = hashlib.sha256(files[0].read_bytes())
    for used in files[1:]:
        digest.update(hashlib.sha256(used.read_bytes()).digest())
    return digest.hexdigest()
