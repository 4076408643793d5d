"""Batches of items through a pipeline: resolve inputs, call blocks, isolate what fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ValidationError

from sam2_blocks.clock import WAITING, stage
from sam2_blocks.engine.flow import ABSENT, Absence, Plan, Progress, Task
from sam2_blocks.engine.intake import Intake, name_failures
from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.engine.records import ErrorRecord, Item, ItemResult, Outputs, SkipRecord
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
    foreign_code,
    is_full,
    message_of,
)
from sam2_blocks.kinds import check_value, kinds_named, parse_value
from sam2_blocks.language.pipeline import Pipeline, Step
from sam2_blocks.language.selectors import InputRef, StepRef, iter_refs
from sam2_blocks.options import check_whole
from sam2_blocks.values import UNNAMED, Image

Settle = Callable[[list[ItemResult]], list[ItemResult]]
"""Takes the results of a micro-batch, and returns what is given on in their place."""

FATAL = (ModelError, MissingExtraError, DocumentError)
"""Causes that no item can escape: they end the run instead of failing item by item, but for items
that say themselves which model they want."""


class Block(Protocol):
    """What a block's class offers. One instance serves one step for as long as the runner lives.

    A runner makes one call at a time to an instance, in the order of the items, but not always from
    the same thread. Several runners may be at work, each with instances of its own.

    ``finish`` may be left out by a class that does not inherit from this one. A class may also have
    a method ``expect``, see `ExpectingBlock`.

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
        """Run the block on one micro-batch.

        Args:
            items: one validated pydantic object an item, whose attributes are the inputs and
                parameters of the manifest. In a step with ``for_each`` these are the elements of
                the lists of all items, in order.

        Returns:
            For each item, in order, its outputs by name, or the exception that it failed with.
            Where ``run`` itself raises, the runner calls it again with one item at a time.
        """
        ...

    def finish(self) -> None:
        """Write what is held; called once when the run ends, also when it is interrupted."""


@runtime_checkable
class ExpectingBlock(Protocol):
    """A block that can prepare for the next micro-batch while it runs the one before."""

    def expect(self, image: Image) -> None:
        """Begin what takes time with a picture that comes soon, and return at once.

        In a run over many items it is called as soon as a picture of the next micro-batch is read,
        from other threads, while ``run`` is at work. It may do nothing; what it raises ends the
        run.

        Args:
            image: what the input ``image`` will be.
        """
        ...


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
        elements: of lists that a repeated step's block gets at once, of all items together.

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
        elements: int = 32,
    ) -> None:
        given = {"batch_size": batch_size, "readers": readers, "elements": elements}
        for name, number in given.items():
            check_whole(name, number, 1)
        self.pipeline = pipeline
        self.resources = resources or plugins.resources()
        self._hook = plugins.manager.hook
        self._batch_size = batch_size
        self._readers = readers
        self._elements = elements
        self._blocks: dict[str, Block] = {}
        self._plans = {step.id: Plan(step, pipeline) for step in pipeline.steps}
        self._leading, self._following = _split_after_accelerator(pipeline.steps)
        self._given_pictures = _find_given_pictures(self._leading)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
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
                    with foreign_code():
                        stack.callback(_finish, self._block(step))

    def run(self, items: Iterable[Item], settle: Settle | None = None) -> Iterator[ItemResult]:
        """Run items; results come in order, at most one micro-batch late.

        Args:
            items: read lazily, one micro-batch ahead of the one that runs.
            settle: gets the results of each micro-batch before they are given on, in a thread
                beside the steps that use a model. What it raises ends the run.

        Raises:
            PipelineError: if an item lacks a required input or has an unknown one.
            StepError: if a model cannot be loaded, which no item would survive that does not name
                one of its own.
            SourceError: if who gives the items fails. This, and what is wrong with the names of an
                item's inputs, comes after the results of all items before it.
            OSError: if a block that writes files found no room on the disk.
        """
        intake = Intake(name_failures(items))
        wrong: Exception | None = None
        behind: Future[list[ItemResult]] = Future()
        behind.set_result([])
        with (
            _Readers(self._readers, "sam2-blocks-reader") as readers,
            ThreadPoolExecutor(1, "sam2-blocks-follower") as follower,
        ):
            # Its thread is there before work is. One that is interrupted while it starts is not
            # waited for at the end, and would go on when all else is finished.
            follower.submit(bool).result()
            upcoming = self._read_batch(readers, intake)
            while upcoming:
                current = upcoming
                try:
                    upcoming = self._read_batch(readers, intake)
                    batch, wrong = _read_until_wrong(current)
                    self._run_steps(self._leading, batch)
                    self.resources.end_batch()
                finally:  # also if interrupted: what is complete is not lost
                    yield from _results_of(behind)
                complete = copy_context().run  # long loops there end when this run shall
                behind = follower.submit(complete, self._complete, batch, settle)
                if wrong is not None:
                    break
            yield from _results_of(behind)
        if wrong is not None:
            raise wrong
        intake.check()

    def _read_batch(self, pool: ThreadPoolExecutor, intake: Intake[Item]) -> list[Future[Progress]]:
        with stage("list"):
            batch = intake.take(self._batch_size)
        read = self._read_ahead if len(batch) > 1 else self._read
        return [pool.submit(copy_context().run, read, item) for item in batch]

    def _read_ahead(self, item: Item) -> Progress:
        """Read an item, and tell blocks that are at work of its pictures."""
        progress = self._read(item)
        for step, given in self._given_pictures:
            block, image = self._blocks.get(step.id), progress.values.get(given)
            if isinstance(block, ExpectingBlock) and isinstance(image, Image):
                try:
                    block.expect(image)
                except BaseException as error:  # a plugin's, which nobody would miss
                    cause = as_error(error)
                    message = f"'expect' failed: {type(cause).__name__}: {message_of(cause)}"
                    raise StepError(step.id, step.manifest.id, message) from cause
        return progress

    @stage("decode")
    def _read(self, item: Item) -> Progress:
        self._check_names(item)
        progress = Progress(item.id, own=item.own)
        # One reason may fail several: of a picture that is not there its boxes say so, too.
        failed: dict[str, tuple[list[str], Exception]] = {}
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
                failed.setdefault(message_of(cause), ([], cause))[0].append(name)
            else:
                progress.values[InputRef(name)] = value
        for reason, (names, cause) in failed.items():
            message = f"{_name_inputs(names)}: {reason}"
            progress.errors.append(
                ErrorRecord(item.id, "inputs", "", message, type(cause).__name__)
            )
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

    def _run_steps(self, steps: Iterable[Step], batch: Sequence[Progress]) -> None:
        for step in steps:
            self._run_step(step, batch)

    def _complete(self, batch: Sequence[Progress], settle: Settle | None) -> list[ItemResult]:
        self._run_steps(self._following, batch)
        results = [self._result_of(progress) for progress in batch]
        return settle(results) if settle and results else results

    def _result_of(self, progress: Progress) -> ItemResult:
        found = {
            name: progress.look_up(selector) for name, selector in self.pipeline.outputs.items()
        }
        outputs = {name: value for name, value in found.items() if value is not ABSENT}
        inputs = (progress.values.get(InputRef(name)) for name in self.pipeline.inputs)
        sizes = (value.hw for value in inputs if isinstance(value, Image))
        errors, skipped = tuple(progress.errors), tuple(progress.skipped)
        return ItemResult(progress.id, outputs, errors, skipped, image_hw=next(sizes, None))

    def _run_step(self, step: Step, batch: Sequence[Progress]) -> None:
        with stage(step.id):
            self._run_step_on(step, batch)

    def _run_step_on(self, step: Step, batch: Sequence[Progress]) -> None:
        planned = [(progress, self._tasks(step, progress)) for progress in batch]
        tasks = [task for _, tasks in planned for task in tasks or ()]
        size = self._elements if step.repeated else len(tasks) or 1
        answers: list[Outputs | None] = []
        for start in range(0, len(tasks), size):
            answers += self._run_tasks(step, tasks[start : start + size])
        left = iter(answers)
        for progress, own in planned:
            if own is not None:
                self._plans[step.id].settle(progress, [next(left) for _ in own])

    def _tasks(self, step: Step, progress: Progress) -> list[Task] | None:
        """What a block has to do for one item; None if the step does not run for it."""
        plan = self._plans[step.id]
        try:
            absence = plan.why_not(progress)
            if absence is None:
                return list(plan.tasks(progress))
        except BaseException as error:  # a plugin's value may fail in any way when it is asked
            cause = as_error(error)
            self._fail(step, Task(progress, {}), message_of(cause), cause)
            absence = Absence("it failed", True)
        progress.absent[step.id] = absence
        if not absence.failed:
            record = SkipRecord(progress.id, step.id, step.manifest.id, absence.reason)
            progress.skipped.append(record)
            self._notify("on_step_skip", step, item_id=progress.id, reason=absence.reason)
        return None

    def _run_tasks(self, step: Step, tasks: Sequence[Task]) -> list[Outputs | None]:
        """Call the block for items or elements; None for those that fail."""
        validated = [self._validate(step, task) for task in tasks]
        work = [(task, item) for task, item in zip(tasks, validated, strict=True) if item]
        if not work:
            return [None] * len(tasks)
        self._notify("before_step", step, item_ids=[task.id for task, _ in work])
        results = iter(self._call(step, work))
        answers = [
            self._accept(step, task, next(results)) if item else None
            for task, item in zip(tasks, validated, strict=True)
        ]
        done = [(task.id, out) for task, out in zip(tasks, answers, strict=True) if out is not None]
        ids, outputs = [name for name, _ in done], [out for _, out in done]
        self._notify("after_step", step, item_ids=ids, outputs=outputs)
        return answers

    def _validate(self, step: Step, task: Task) -> BaseModel | None:
        try:
            for rule in step.manifest.unmet_groups(task.values):  # a selector stood for nothing
                raise ValueError(rule)
            return step.item_model.model_validate(task.values)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            name = ".".join(map(str, detail["loc"]))
            message = str(detail["msg"]).removeprefix("Value error, ")
            self._fail(step, task, f"{name!r}: {message}", error)
        except BaseException as error:  # a plugin's kind may fail in any way
            cause = as_error(error)
            self._fail(step, task, message_of(cause), cause)
        return None

    def _call(
        self, step: Step, work: Sequence[tuple[Task, BaseModel]]
    ) -> Sequence[Outputs | Exception]:
        items = [item for _, item in work]
        try:
            results = self._block(step).run(items)
            if len(results) != len(items):
                raise RuntimeError(f"returned {len(results)} results for {len(items)} items")
            return list(results)  # a sequence of a plugin's own may fail when it is read
        except BaseException as error:  # a block may fail in any way; find the item that did it
            cause = as_error(error)
            own = any(self._plans[step.id].has_own_model(task.progress) for task, _ in work)
            if isinstance(cause, FATAL) and not own:
                raise StepError(step.id, step.manifest.id, message_of(cause)) from cause
            if len(items) == 1:
                return [cause]
            return [result for one in work for result in self._call(step, [one])]

    def _accept(self, step: Step, task: Task, result: Outputs | Exception) -> Outputs | None:
        """Check what a block returned for one item or element; None if it failed."""
        try:
            if isinstance(result, BaseException):
                raise result
            return self._checked_outputs(step, result)
        except BaseException as error:  # a plugin's kind may fail in any way, too
            cause = as_error(error)
            if is_full(cause) and step.manifest.file_access == "write":
                raise  # no other item would find room
            self._fail(step, task, message_of(cause), cause)
        return None

    def _checked_outputs(self, step: Step, result: Outputs) -> Outputs:
        kinds = self._plans[step.id].kinds
        if set(result) != set(kinds):
            raise ValueError(f"the block promises {sorted(kinds)}, but gave {sorted(result)}")
        settled: dict[str, Any] = {}
        for name, of in kinds.items():
            try:
                settled[name] = check_value(result[name], of)
            except TypeError as error:
                raise TypeError(f"the block's output {name!r} is wrong: {error}") from error
        return settled

    def _fail(self, step: Step, task: Task, message: str, cause: Exception) -> None:
        task.fail(step, message, cause)
        error = StepError(step.id, step.manifest.id, message)
        error.__cause__ = cause
        self._notify("on_step_error", step, item_id=task.id, error=error)

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


class _Readers(ThreadPoolExecutor):
    """Threads that read; at the end of a run nobody waits for what they have not begun."""

    def __exit__(self, *_: object) -> None:
        self.shutdown(cancel_futures=True)


@stage(WAITING)
def _read_until_wrong(
    reading: Sequence[Future[Progress]],
) -> tuple[list[Progress], Exception | None]:
    """Wait for items that are being read, up to one that ends the run, and say why it does."""
    read: list[Progress] = []
    try:
        for future in reading:
            read.append(future.result())
    except Exception as error:
        return read, error
    return read, None


def _results_of(batch: Future[list[ItemResult]]) -> Iterator[ItemResult]:
    """Wait for a micro-batch and give its results, also if interrupted while it is on its way."""
    try:
        wait([batch])
    finally:
        yield from batch.result()


def _name_inputs(names: Sequence[str]) -> str:
    return f"input{'s' * (len(names) > 1)} {', '.join(map(repr, names))}"


def _split_after_accelerator(steps: Sequence[Step]) -> tuple[Sequence[Step], Sequence[Step]]:
    """Split where no later step asks for an accelerator; without any, all steps lead."""
    users = [
        position
        for position, step in enumerate(steps, 1)
        if step.manifest.resources.hints.accelerator != "none"
    ]
    split = max(users, default=len(steps))
    return steps[:split], steps[split:]


def _find_given_pictures(steps: Iterable[Step]) -> list[tuple[Step, InputRef]]:
    """Steps that are certain to get pictures of the pipeline's input, and which."""
    may_skip: set[str] = set()
    found = []
    for step in steps:
        needed = {ref.step for ref in iter_refs(dict(step.values)) if isinstance(ref, StepRef)}
        given = step.values.get("image")
        if step.when or needed & may_skip:
            may_skip.add(step.id)
        elif isinstance(given, InputRef) and not step.repeated:
            found.append((step, given))
    return found


def _finish(block: Block) -> None:
    """Let a block write what it holds, if it has anything to do then."""
    with foreign_code():
        finish = getattr(block, "finish", None)
        if finish is not None:
            finish()
