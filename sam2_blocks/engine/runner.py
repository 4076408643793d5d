"""Batches of items through a pipeline: resolve inputs, call blocks, isolate what fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from itertools import islice
from types import TracebackType
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import (
    DocumentError,
    MissingExtraError,
    ModelError,
    PipelineError,
    Problem,
    StepError,
    as_error,
    did_you_mean,
    message_of,
)
from sam2_blocks.kinds import check_value, kinds_named, parse_value
from sam2_blocks.language.pipeline import Pipeline, Step
from sam2_blocks.language.selectors import InputRef, Selector, StepRef, iter_selectors, resolve
from sam2_blocks.values import UNNAMED, Image

FATAL = (ModelError, MissingExtraError, DocumentError)
"""Causes that no item can escape: they end the run instead of failing item by item."""

Outputs = Mapping[str, Any]


class Block(Protocol):
    """What a block's class offers. One instance serves one step for as long as the runner lives.

    ``run`` gets a micro-batch: one validated pydantic object per item, whose attributes are the
    inputs and parameters of the manifest. It returns, in the same order, a mapping of outputs per
    item, or the exception that item failed with. If ``run`` raises, the runner calls it again with
    one item at a time. ``finish`` may be left out by a class that does not inherit from this one. A
    runner calls each instance once at a time and in the order of the
    items, if not always from the same thread; several runners may be at work, each with instances
    of its own.

    Example:
        >>> class Negative:
        ...     def __init__(self, resources):
        ...         self.resources = resources
        ...
        ...     def run(self, items):
        ...         return [{"image": Image(255 - item.image.pixels)} for item in items]
    """

    def __init__(self, resources: Resources) -> None: ...

    def run(self, items: Sequence[Any]) -> Sequence[Outputs | Exception]:
        """Process one micro-batch."""
        ...

    def finish(self) -> None:
        """Write what is held; called once when the run ends, also when it is interrupted."""


@dataclass(frozen=True)
class Item:
    """One unit of work.

    Attributes:
        id: name for messages and output files, unique within a run.
        inputs: values by pipeline input. A callable is called in a reader thread when its
            micro-batch comes; plain data is parsed by the input's kind.
        stamp: changes when what the item stands for changes, such as size and time of a file;
            empty if nobody can tell, and no run counts the item as finished then.
        group: items of one group are run in order and all of them, for what is remembered from one
            to the next, such as the frames of a video; empty for items on their own.

    Example:
        >>> item = Item("dark.png", {"image": "pictures/dark.png"})  # the kind reads the file
        >>> item.id
        'dark.png'
    """

    id: str
    inputs: Mapping[str, Any]
    stamp: str = ""
    group: str = ""


@dataclass(frozen=True)
class ErrorRecord:
    """Why one item failed.

    Attributes:
        item: id of the item.
        step: id of the step, or ``inputs`` if the item could not be read.
        block: id of the step's block; empty for ``inputs``.
        message: what was wrong and what to do.
        cause: type of the underlying exception.

    Example:
        >>> error = ErrorRecord("a.jpg", "boxes", "my/boxes@v1", "no such file", "ValueError")
        >>> f"{error.item}, step {error.step}: {error.message}"
        'a.jpg, step boxes: no such file'
    """

    item: str
    step: str
    block: str
    message: str
    cause: str


@dataclass(frozen=True)
class ItemResult:
    """What became of one item.

    Attributes:
        id: id of the item.
        outputs: pipeline outputs by name; those that a failed step should have made are missing.
        errors: why they are missing; empty on success.

    Example:
        >>> result = ItemResult("a.jpg", {"count": 3})
        >>> result.outputs["count"], result.errors
        (3, ())
    """

    id: str
    outputs: Outputs
    errors: tuple[ErrorRecord, ...] = ()


@dataclass
class _Progress:
    """One item on its way through the graph."""

    id: str
    values: dict[Selector, Any] = field(default_factory=dict)
    errors: list[ErrorRecord] = field(default_factory=list)

    def fail(self, step: str, block: str, message: str, cause: BaseException) -> None:
        self.errors.append(ErrorRecord(self.id, step, block, message, type(cause).__name__))


class Runner:
    """Runs items through one pipeline; use as a context manager.

    Micro-batches overlap: while one is on the accelerator, threads read the next, and the one
    before goes through the steps that follow the last one with the hint ``accelerator``.

    Args:
        pipeline: the checked graph.
        plugins: where blocks and hooks come from.
        resources: executors to share with other runners; new ones if not given.
        batch_size: items per micro-batch.
        readers: threads that read the inputs of the next micro-batch meanwhile.

    Example:
        >>> plugins = load_plugins(points=[])
        >>> pipeline = load_pipeline("examples/quickstart.yaml", plugins.manifests, plugins.kinds)
        >>> item = Item("coins.jpg", {"image": "examples/pictures/coins.jpg"})
        >>> with Runner(pipeline, plugins) as runner:
        ...     [result] = runner.run([item])
        >>> len(result.outputs["predictions"])
        24
    """

    def __init__(
        self,
        pipeline: Pipeline,
        plugins: Plugins,
        *,
        resources: Resources | None = None,
        batch_size: int = 8,
        readers: int = 4,
    ) -> None:
        if batch_size < 1 or readers < 1:
            raise ValueError(f"batch_size and readers want >= 1, got {batch_size} and {readers}")
        self.pipeline = pipeline
        self.resources = resources or plugins.resources()
        self._hook = plugins.manager.hook
        self._batch_size = batch_size
        self._readers = readers
        self._blocks: dict[str, Block] = {}
        self._leading, self._following = _split_after_accelerator(pipeline.steps)

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish()

    def finish(self) -> None:
        """Let every block write what it holds; called once, also after an interruption."""
        with ExitStack() as stack:  # every block gets its turn, whatever another one raises
            stack.callback(self._blocks.clear)
            for block in reversed(self._blocks.values()):
                stack.callback(_finish, block)
            for step in self.pipeline.steps:
                # A file for all items is written even if none reached it.
                writes = step.manifest.file_access == "write" and self.resources.files.kept
                if writes and step.id not in self._blocks:
                    stack.callback(_finish, self._block(step))

    def run(self, items: Iterable[Item]) -> Iterator[ItemResult]:
        """Run items; results come in order, at most one micro-batch late.

        Args:
            items: read lazily, one micro-batch ahead of the one that runs.

        Raises:
            PipelineError: if an item lacks a required input or has an unknown one.
            StepError: if a model cannot be loaded, which no item would survive.
        """
        source = iter(items)
        behind: Future[list[ItemResult]] = Future()
        behind.set_result([])
        with (
            ThreadPoolExecutor(self._readers, "sam2-blocks-reader") as readers,
            ThreadPoolExecutor(1, "sam2-blocks-follower") as follower,
        ):
            upcoming = self._read_batch(readers, source)
            while upcoming:
                current = upcoming
                try:
                    upcoming = self._read_batch(readers, source)
                    batch = [future.result() for future in current]
                    self._run_steps(self._leading, batch)
                finally:  # also if interrupted: what is complete is not lost
                    yield from _results_of(behind)
                complete = copy_context().run  # long loops there end when this run shall
                behind = follower.submit(complete, self._complete, self._following, batch)
            yield from _results_of(behind)

    def _read_batch(
        self, pool: ThreadPoolExecutor, items: Iterator[Item]
    ) -> list[Future[_Progress]]:
        return [pool.submit(self._read, item) for item in islice(items, self._batch_size)]

    def _read(self, item: Item) -> _Progress:
        self._check_names(item)
        progress = _Progress(item.id)
        for name, declared in self.pipeline.inputs.items():
            value = item.inputs.get(name, declared.default)
            try:
                given = value() if callable(value) else value
                kinds = kinds_named(declared.kinds, self.pipeline.kinds)
                value = None if given is None else parse_value(given, kinds)
                if value is not given and isinstance(value, Image) and value.id == UNNAMED:
                    value = replace(value, id=item.id)
            except BaseException as error:  # whatever is wrong with this item, the others go on
                cause = as_error(error)
                progress.fail("inputs", "", f"input {name!r}: {message_of(cause)}", cause)
            else:
                progress.values[InputRef(name)] = value
        return progress

    def _check_names(self, item: Item) -> None:
        problems = [
            Problem(
                f"item {item.id!r}: no input is called {name!r}."
                f"{did_you_mean(name, self.pipeline.inputs)}",
                "inputs",
            )
            for name in item.inputs
            if name not in self.pipeline.inputs
        ]
        problems += [
            Problem(f"item {item.id!r}: input {name!r} is required, give it a value.", "inputs")
            for name, declared in self.pipeline.inputs.items()
            if declared.required and name not in item.inputs
        ]
        if problems:
            raise PipelineError(self.pipeline.source, problems)

    def _run_steps(self, steps: Iterable[Step], batch: Sequence[_Progress]) -> None:
        for step in steps:
            self._run_step(step, batch)

    def _complete(self, steps: Iterable[Step], batch: Sequence[_Progress]) -> list[ItemResult]:
        self._run_steps(steps, batch)
        return [self._result_of(progress) for progress in batch]

    def _result_of(self, progress: _Progress) -> ItemResult:
        outputs = {
            name: progress.values[selector]
            for name, selector in self.pipeline.outputs.items()
            if selector in progress.values
        }
        return ItemResult(progress.id, outputs, tuple(progress.errors))

    def _run_step(self, step: Step, batch: Sequence[_Progress]) -> None:
        ready = [progress for progress in batch if _has_inputs(step, progress)]
        validated = [(progress, self._validate(step, progress)) for progress in ready]
        work = [(progress, item) for progress, item in validated if item is not None]
        if not work:
            return
        self._notify("before_step", step, item_ids=[progress.id for progress, _ in work])
        results = self._call(step, [item for _, item in work])
        done = []
        for (progress, _), result in zip(work, results, strict=True):
            outputs = self._accept(step, progress, result)
            if outputs is not None:
                done.append((progress.id, outputs))
        ids, outputs_done = [name for name, _ in done], [out for _, out in done]
        self._notify("after_step", step, item_ids=ids, outputs=outputs_done)

    def _validate(self, step: Step, progress: _Progress) -> BaseModel | None:
        values = {name: resolve(value, progress.values.get) for name, value in step.values.items()}
        try:
            for rule in step.manifest.unmet_groups(values):  # where a selector stood for nothing
                raise ValueError(rule)
            return step.item_model.model_validate(values)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            name = ".".join(map(str, detail["loc"]))
            message = str(detail["msg"]).removeprefix("Value error, ")
            self._fail(step, progress, f"{name!r}: {message}", error)
        except BaseException as error:  # a plugin's kind may fail in any way
            cause = as_error(error)
            self._fail(step, progress, message_of(cause), cause)
        return None

    def _call(self, step: Step, items: Sequence[BaseModel]) -> Sequence[Outputs | Exception]:
        try:
            results = self._block(step).run(items)
            if len(results) != len(items):
                raise RuntimeError(f"returned {len(results)} results for {len(items)} items")
            return results
        except FATAL as error:
            raise StepError(step.id, step.manifest.id, message_of(error)) from error
        except BaseException as error:  # a block may fail in any way; find the item that did it
            cause = as_error(error)
            if len(items) == 1:
                return [cause]
            return [result for item in items for result in self._call(step, [item])]

    def _accept(
        self, step: Step, progress: _Progress, result: Outputs | Exception
    ) -> Outputs | None:
        """Check what a block returned for one item and make it visible to later steps."""
        if isinstance(result, BaseException):
            cause = as_error(result)
            self._fail(step, progress, message_of(cause), cause)
            return None
        try:
            result = self._checked_outputs(step, result)
        except BaseException as error:  # a plugin's kind may fail in any way, too
            cause = as_error(error)
            self._fail(step, progress, message_of(cause), cause)
            return None
        for name, value in result.items():
            progress.values[StepRef(step.id, name)] = value
        return result

    def _checked_outputs(self, step: Step, result: Outputs) -> Outputs:
        declared = step.manifest.outputs
        if set(result) != set(declared):
            raise ValueError(f"the block promises {sorted(declared)}, but gave {sorted(result)}")
        settled: dict[str, Any] = {}
        for name, socket in declared.items():
            try:
                kinds = kinds_named(socket.kinds, self.pipeline.kinds)
                settled[name] = check_value(result[name], kinds)
            except TypeError as error:
                raise TypeError(f"the block's output {name!r} is wrong: {error}") from error
        return settled

    def _fail(self, step: Step, progress: _Progress, message: str, cause: Exception) -> None:
        progress.fail(step.id, step.manifest.id, message, cause)
        error = StepError(step.id, step.manifest.id, message)
        error.__cause__ = cause
        self._notify("on_step_error", step, item_id=progress.id, error=error)

    def _notify(self, hook: str, step: Step, **arguments: Any) -> None:
        try:
            getattr(self._hook, hook)(step=step, **arguments)
        except BaseException as error:  # a plugin's; what it was to watch over is not certain now
            cause = as_error(error)
            message = f"a plugin's hook {hook!r} failed: {type(cause).__name__}: "
            raise StepError(step.id, step.manifest.id, message + message_of(cause)) from cause

    def _block(self, step: Step) -> Block:
        if step.id not in self._blocks:
            self._blocks[step.id] = step.manifest.load_entry()(self.resources)
        return self._blocks[step.id]


def _results_of(batch: Future[list[ItemResult]]) -> Iterator[ItemResult]:
    """Wait for a micro-batch and give its results, also if interrupted while it is on its way."""
    try:
        wait([batch])
    finally:
        yield from batch.result()


def _has_inputs(step: Step, progress: _Progress) -> bool:
    """Whether everything the step is wired to is there; else an earlier step failed."""
    wanted = iter_selectors(dict(step.values))
    return all(selector in progress.values for selector in wanted)


def _split_after_accelerator(steps: Sequence[Step]) -> tuple[Sequence[Step], Sequence[Step]]:
    """Split where no later step asks for an accelerator; without any, all steps lead."""
    users = [
        position
        for position, step in enumerate(steps, 1)
        if step.manifest.resources.hints.accelerator != "none"
    ]
    split = max(users, default=len(steps))
    return steps[:split], steps[split:]


def _finish(block: Block) -> None:
    """Let a block write what it holds, if it has anything to do then."""
    finish = getattr(block, "finish", None)
    if finish is None:
        return
    try:
        finish()
    except Exception:
        raise
    except BaseException as error:  # a plugin's code may fail in any way
        raise as_error(error) from error
