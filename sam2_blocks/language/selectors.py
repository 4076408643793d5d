"""Selectors: ``$inputs.name`` and ``$steps.step.output``, anywhere inside a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

SELECTOR_PATTERN = r"^\$(?:inputs\.(\w+)|steps\.(\w+)\.(\w+))$"


class InputRef(NamedTuple):
    """A pipeline input."""

    name: str

    def __str__(self) -> str:
        return f"$inputs.{self.name}"


class StepRef(NamedTuple):
    """An output of a step."""

    step: str
    output: str

    def __str__(self) -> str:
        return f"$steps.{self.step}.{self.output}"


Selector = InputRef | StepRef


def parse_selectors(value: Any) -> Any:
    """Replace selector strings by `InputRef` and `StepRef`, also inside lists and mappings.

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
    if isinstance(value, InputRef | StepRef):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from iter_selectors(entry)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from iter_selectors(entry)


def resolve(value: Any, lookup: Callable[[Selector], Any]) -> Any:
    """Replace every selector inside a value by what it stands for."""
    if isinstance(value, InputRef | StepRef):
        return lookup(value)
    if isinstance(value, list):
        return [resolve(entry, lookup) for entry in value]
    if isinstance(value, dict):
        return {key: resolve(entry, lookup) for key, entry in value.items()}
    return value
