"""Selectors: ``$inputs.name``, ``$steps.step.output``, and in a ``for_each`` ``$each``, ``$index``.

They may stand anywhere inside a value. What a checked pipeline holds in their place are the classes
below: an `InputRef` or a `StepRef`, alone or inside an `EachRef` or a `DefaultRef`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

SELECTOR_PATTERN = r"^\$(?:inputs\.(\w+)|steps\.(\w+)\.(\w+)|each|index)$"


class InputRef(NamedTuple):
    """``$inputs.name``: a pipeline input."""

    name: str

    def __str__(self) -> str:
        return f"$inputs.{self.name}"


class StepRef(NamedTuple):
    """``$steps.step.output``: an output of a step."""

    step: str
    output: str

    def __str__(self) -> str:
        return f"$steps.{self.step}.{self.output}"


@dataclass(frozen=True)
class EachRef:
    """``$each``: the element of a list that a repeated step is run for.

    Attributes:
        of: the list: a selector, or what an outer pipeline put in its place; None in a step that
            was not checked yet.
    """

    of: Any = None

    def __str__(self) -> str:
        return "$each"


@dataclass(frozen=True)
class IndexRef:
    """``$index``: the number of the element that a repeated step is run for, counted from 0."""

    def __str__(self) -> str:
        return "$index"


@dataclass(frozen=True, eq=False)
class DefaultRef:
    """The default of an output: what a selector stands for, or another value if it was skipped.

    Attributes:
        of: the selector.
        value: the other value.
    """

    of: Any
    value: Any

    def __str__(self) -> str:
        return str(self.of)


Selector = InputRef | StepRef | EachRef | IndexRef | DefaultRef

_OF_A_LOOP: dict[str, Selector] = {"$each": EachRef(), "$index": IndexRef()}


def parse_selectors(value: Any) -> Any:
    """Replace selector strings by what they stand for, also inside lists and mappings.

    ``$$`` at the start of a string is a literal dollar.

    Raises:
        ValueError: if a string starts with one dollar and is no selector.
    """
    if isinstance(value, list):
        return [parse_selectors(entry) for entry in value]
    if isinstance(value, dict):
        return {key: parse_selectors(entry) for key, entry in value.items()}
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    if value.startswith("$$"):
        return value[1:]
    if value in _OF_A_LOOP:
        return _OF_A_LOOP[value]
    match = re.fullmatch(SELECTOR_PATTERN, value)
    if match is None:
        raise ValueError(
            f"{value!r} is no selector; write $inputs.NAME or $steps.STEP.OUTPUT, "
            "or $$ for a literal dollar"
        )
    name, step, output = match.groups()
    return InputRef(name) if name else StepRef(step, output)


def iter_selectors(value: Any) -> Iterator[Selector]:
    """Yield every selector inside a value."""
    if isinstance(value, Selector):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from iter_selectors(entry)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from iter_selectors(entry)


def iter_refs(value: Any) -> Iterator[InputRef | StepRef]:
    """Yield every input and output that the selectors inside a value lead to."""
    for selector in iter_selectors(value):
        if isinstance(selector, EachRef | DefaultRef):
            yield from iter_refs(selector.of)
        elif not isinstance(selector, IndexRef):
            yield selector


def resolve(value: Any, lookup: Callable[[Selector], Any]) -> Any:
    """Replace every selector inside a value by what it stands for.

    Args:
        value: plain data with selectors anywhere inside.
        lookup: returns what a selector stands for.

    Returns:
        The same lists and mappings, made anew.
    """
    if isinstance(value, Selector):
        return lookup(value)
    if isinstance(value, list):
        return [resolve(entry, lookup) for entry in value]
    if isinstance(value, dict):
        return {key: resolve(entry, lookup) for key, entry in value.items()}
    return value


def rewire(value: Any, change: Callable[[InputRef | StepRef], Any]) -> Any:
    """Replace the inputs and outputs that selectors inside a value lead to.

    It is how the steps of a pipeline that is used as a block are wired into the outer one.

    Args:
        value: plain data with selectors anywhere inside.
        change: returns the selector, or the written value, that takes the place of one.

    Returns:
        The value with the same `EachRef` and `IndexRef` around what was replaced. A `DefaultRef`
        stays only around a selector: a written value is always there and needs no default.
    """

    def changed(selector: Selector) -> Any:
        if isinstance(selector, EachRef):
            return EachRef(rewire(selector.of, change))
        if isinstance(selector, DefaultRef):
            of = rewire(selector.of, change)
            return DefaultRef(of, selector.value) if isinstance(of, Selector) else of
        return selector if isinstance(selector, IndexRef) else change(selector)

    return resolve(value, changed)
