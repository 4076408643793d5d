"""Flow: what a step is given for an item, whether it runs for it, and once or for every element.

An item that is on its way is a `Progress`. A step makes `Task` objects of it: one, or one for each
element of a list. What a step did not make is absent, with its reason: it failed, or it was
skipped, and what needs it is neither run nor covered up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sam2_blocks.engine.records import ErrorRecord, Outputs, SkipRecord
from sam2_blocks.kinds import kinds_named
from sam2_blocks.language.flow import (
    COUNT,
    FORM_OF_TYPE,
    FORMS,
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    Not,
    condition_values,
)
from sam2_blocks.language.manifest import Manifest
from sam2_blocks.language.pipeline import EACH, Pipeline, Step
from sam2_blocks.language.selectors import (
    DefaultRef,
    EachRef,
    IndexRef,
    InputRef,
    Selector,
    StepRef,
    iter_selectors,
    resolve,
)

ABSENT = object()
"""Stands for a value that is not there."""


HOW_LOADED = frozenset({"dtype", "input_px", "revision"})
"""Parameters, beside those whose format says so, that change what is loaded."""


class Absence(NamedTuple):
    """Why something is not there, and whether that is an error."""

    reason: str
    failed: bool


@dataclass
class Progress:
    """One item on its way through the graph.

    Attributes:
        id: of the item.
        values: what is there, by selector.
        absent: why a step's outputs are not there, by step.
        errors: what failed.
        skipped: what did not run.
        own: inputs whose values are of this item alone; see `Item`.
    """

    id: str
    values: dict[Selector, Any] = field(default_factory=dict)
    absent: dict[str, Absence] = field(default_factory=dict)
    errors: list[ErrorRecord] = field(default_factory=list)
    skipped: list[SkipRecord] = field(default_factory=list)
    own: Collection[str] = ()

    def look_up(self, selector: Any, index: int | None = None) -> Any:
        """What a selector stands for, or `ABSENT`; what is no selector stands for itself.

        Args:
            selector: of the pipeline.
            index: the element that is asked for.
        """
        if isinstance(selector, InputRef | StepRef):
            return self.values.get(selector, ABSENT)
        if isinstance(selector, EachRef):
            listed = self.look_up(selector.of)
            return listed if listed is ABSENT else listed[index]
        if isinstance(selector, IndexRef):
            return index
        if isinstance(selector, DefaultRef):
            found = self.look_up(selector.of, index)
            failed = found is ABSENT and self.why_absent(selector.of).failed
            return selector.value if found is ABSENT and not failed else found
        return selector

    def why_absent(self, selector: Any) -> Absence:
        """Why a selector stands for nothing."""
        if isinstance(selector, EachRef | DefaultRef):
            return self.why_absent(selector.of)
        if isinstance(selector, StepRef) and selector.step in self.absent:
            because = self.absent[selector.step]
            what = "failed" if because.failed else "was skipped"
            return Absence(
                f"it needs {selector}, and step {selector.step!r} {what}", because.failed
            )
        return Absence(f"it needs {selector}, which could not be read", True)


@dataclass(frozen=True)
class Task:
    """One call of a block: for an item, or for one element of a list of it.

    Attributes:
        progress: the item.
        values: what the block is given, by input and parameter.
        index: number of the element.
    """

    progress: Progress
    values: Mapping[str, Any]
    index: int | None = None

    @property
    def id(self) -> str:
        """Id of the item, and the number of the element."""
        return self.progress.id if self.index is None else f"{self.progress.id}[{self.index}]"

    def fail(self, step: Step, message: str, cause: Exception) -> None:
        """Note that a step failed here; an element that may be dropped is no error."""
        of, block, kind = self.progress, step.manifest.id, type(cause).__name__
        if self.index is not None and step.on_error == "drop":
            reason = f"dropped: {kind}: {message}"
            of.skipped.append(SkipRecord(of.id, step.id, block, reason, self.index))
        else:
            of.errors.append(ErrorRecord(of.id, step.id, block, message, kind, self.index))


class Plan:
    """How one step takes its part of an item; made once for a run.

    Args:
        step: the step.
        pipeline: whose step it is.
    """

    def __init__(self, step: Step, pipeline: Pipeline) -> None:
        inputs = step.manifest.inputs
        many = {key for key in step.values if key in inputs and inputs[key].many}
        once = {key: value for key, value in step.values.items() if key not in many}
        self.step = step
        self.kinds = {
            name: kinds_named(socket.kinds, pipeline.kinds)
            for name, socket in step.manifest.outputs.items()
        }
        self._many = {key: list(step.values[key]) for key in many}
        self._asked = list(iter_selectors(condition_values(step.when)))
        self._needs = [one for one in iter_selectors([once, _list_of(step)]) if not _is_index(one)]
        varies = {key for key, value in once.items() if any(map(_varies, iter_selectors(value)))}
        choosing = [step.values[key] for key in step.values if _chooses(step.manifest, key)]
        self._choosing = list(iter_selectors(choosing))
        self._varying = {key: once[key] for key in varies}
        self._same = {key: value for key, value in once.items() if key not in varies}

    def has_own_model(self, progress: Progress) -> bool:
        """Whether an item itself says which model is loaded, or how, and not the whole run."""
        return bool(progress.own) and any(
            of.name in progress.own if isinstance(of, InputRef) else not _is_index(of)
            for of in map(_without_default, self._choosing)
        )

    def why_not(self, progress: Progress) -> Absence | None:
        """Why the step does not run for an item; None if it does.

        Raises:
            TypeError: if a condition cannot be asked of what came.
        """
        missing = _first_absent(progress, self._asked)
        if missing is not None:
            return missing
        for condition in self.step.when:
            if not holds(condition, progress):
                return Absence(f"'when' does not hold: {condition}", False)
        missing = _first_absent(progress, self._needs)
        if missing is not None:
            return missing
        return next(filter(None, (_none_of(progress, of) for of in self._many.values())), None)

    def tasks(self, progress: Progress) -> Iterator[Task]:
        """Make the calls for one item.

        Raises:
            TypeError: if what the step is repeated over is no list.
        """
        same = {key: resolve(value, progress.look_up) for key, value in self._same.items()}
        for key, selectors in self._many.items():
            found = (progress.look_up(selector) for selector in selectors)
            same[key] = [value for value in found if value is not ABSENT]
        if self.step.for_each is None:
            yield Task(progress, same)
            return
        for index in range(len(self._elements(progress))):
            own = {
                key: resolve(value, lambda one, at=index: progress.look_up(one, at))  # type: ignore[misc]
                for key, value in self._varying.items()
            }
            yield Task(progress, {**same, **own}, index)

    def settle(self, progress: Progress, answers: Sequence[Outputs | None]) -> None:
        """Make what the block answered for one item visible to later steps.

        Args:
            progress: the item.
            answers: of its tasks, in order; None for one that failed.
        """
        step = self.step
        failed = any(answer is None for answer in answers)
        if failed and step.on_error == "fail":
            progress.absent[step.id] = Absence("it failed", True)
            return
        if step.for_each is None:
            for name, value in (answers[0] or {}).items():
                progress.values[StepRef(step.id, name)] = value
            return
        kept = [(index, answer) for index, answer in enumerate(answers) if answer is not None]
        for name in step.manifest.outputs:
            progress.values[StepRef(step.id, name)] = [answer[name] for _, answer in kept]
        elements = self._elements(progress)
        progress.values.setdefault(StepRef(step.id, EACH), [elements[index] for index, _ in kept])

    def _elements(self, progress: Progress) -> Sequence[Any]:
        assert self.step.for_each is not None
        listed = progress.look_up(self.step.for_each.of)
        if not isinstance(listed, list | tuple):
            raise TypeError(f"'for_each' wants a list, got {type(listed).__name__}")
        return listed


def holds(condition: Condition, progress: Progress) -> bool:
    """Whether a condition holds for an item, for which everything that it asks is there.

    Raises:
        TypeError: if a value cannot be compared this way; possible where its kind was any.
    """
    if isinstance(condition, Not):
        return not holds(condition.part, progress)
    if isinstance(condition, AllOf):
        return all(holds(part, progress) for part in condition.parts)
    if isinstance(condition, AnyOf):
        return any(holds(part, progress) for part in condition.parts)
    return _compare(condition, progress)


def _compare(condition: Comparison, progress: Progress) -> bool:
    value = _measure(condition, progress.look_up(condition.value))
    to = progress.look_up(condition.to)
    if condition.operator in ("not_empty", "empty"):
        return bool(value) == (condition.operator == "not_empty")
    if condition.operator == "equals":
        return bool(value == to)
    try:
        if condition.operator == "in":
            return value in to
        return bool(value >= to if condition.operator == "at_least" else value <= to)
    except TypeError as error:
        raise TypeError(f"'when': {condition} cannot be asked: {error}") from error


def _measure(condition: Comparison, value: Any) -> Any:
    """A number, a text or a truth value as it is; of anything else how many it holds."""
    if value is None and condition.operator in ("not_empty", "empty"):
        return 0  # an input that was not given
    form = next((form for type_, form in FORM_OF_TYPE.items() if isinstance(value, type_)), COUNT)
    if form in FORMS[condition.operator]:
        if form != COUNT:
            return value
        if hasattr(value, "__len__"):
            return len(value)
    raise TypeError(f"'when': {condition} cannot be asked of a {type(value).__name__}")


def _first_absent(progress: Progress, selectors: Sequence[Selector]) -> Absence | None:
    """The first that is not there; an error before a skip."""
    found = []
    for selector in selectors:
        of = selector.of if isinstance(selector, EachRef) else selector
        if progress.look_up(of) is ABSENT:
            found.append(progress.why_absent(of))
    return min(found, key=lambda one: not one.failed, default=None)


def _none_of(progress: Progress, selectors: Sequence[Selector]) -> Absence | None:
    """Why not one of several is there, or why one failed."""
    missing = [one for one in selectors if progress.look_up(one) is ABSENT]
    reasons = [progress.why_absent(one) for one in missing]
    failed = next((one for one in reasons if one.failed), None)
    if failed is None and len(missing) == len(selectors):
        return Absence(f"none of {', '.join(map(str, selectors))} is there", False)
    return failed


def _list_of(step: Step) -> Any:
    return None if step.for_each is None else step.for_each.of


def _chooses(manifest: Manifest, key: str) -> bool:
    """Whether a parameter says which model is loaded, or how."""
    param = manifest.params.get(key)
    named = param is not None and param.format in ("model", "device", "backend")
    return named or key in HOW_LOADED


def _without_default(selector: Selector) -> Selector:
    return selector.of if isinstance(selector, DefaultRef) else selector


def _varies(selector: Selector) -> bool:
    if isinstance(selector, DefaultRef):
        return any(map(_varies, iter_selectors(selector.of)))
    return isinstance(selector, EachRef | IndexRef)


def _is_index(selector: Selector) -> bool:
    return isinstance(selector, IndexRef)
