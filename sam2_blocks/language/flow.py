"""Conditions of steps: read, checked by the kinds of what they compare, and rewired.

A condition is data: selectors, literals and six operators, no expression. `sam2_blocks.engine.flow`
asks it of an item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sam2_blocks.kinds import ANY, Kind, find_kind
from sam2_blocks.language.documents import DocumentPath
from sam2_blocks.language.selectors import Selector, parse_selectors
from sam2_blocks.language.written import Operator, WhenDeclaration


@dataclass(frozen=True)
class Comparison:
    """One comparison.

    Attributes:
        value: a selector, or what an outer pipeline put in its place.
        operator: how it is compared; what has a number of something is compared by that.
        to: with what: a literal or a selector; None where the operator needs nothing.
    """

    value: Any
    operator: Operator
    to: Any = None

    def __str__(self) -> str:
        to = "" if self.to is None else f" {self.to if _is_selector(self.to) else repr(self.to)}"
        return f"{self.value} is {self.operator}{to}"


@dataclass(frozen=True)
class AllOf:
    """Holds if all parts do."""

    parts: tuple[Condition, ...]

    def __str__(self) -> str:
        return f"all of ({', '.join(map(str, self.parts))})"


@dataclass(frozen=True)
class AnyOf:
    """Holds if one part does."""

    parts: tuple[Condition, ...]

    def __str__(self) -> str:
        return f"any of ({', '.join(map(str, self.parts))})"


@dataclass(frozen=True)
class Not:
    """Holds if its part does not."""

    part: Condition

    def __str__(self) -> str:
        return f"not ({self.part})"


Condition = Comparison | AllOf | AnyOf | Not


def comparisons_of(condition: Condition) -> Iterator[Comparison]:
    """Yield every comparison of a condition."""
    if isinstance(condition, Comparison):
        yield condition
    elif isinstance(condition, Not):
        yield from comparisons_of(condition.part)
    else:
        for part in condition.parts:
            yield from comparisons_of(part)


def condition_values(conditions: Sequence[Condition]) -> list[Any]:
    """Everything that conditions look at."""
    found = [one for condition in conditions for one in comparisons_of(condition)]
    return [value for one in found for value in (one.value, one.to)]


def rewire_condition(condition: Condition, change: Callable[[Any], Any]) -> Condition:
    """Replace the values that a condition compares.

    Args:
        condition: with whatever parts.
        change: returns what takes the place of a value.
    """
    if isinstance(condition, Comparison):
        return Comparison(change(condition.value), condition.operator, change(condition.to))
    if isinstance(condition, Not):
        return Not(rewire_condition(condition.part, change))
    parts = tuple(rewire_condition(part, change) for part in condition.parts)
    return AllOf(parts) if isinstance(condition, AllOf) else AnyOf(parts)


# --- what may be compared how -----------------------------------------------------------------

COUNT, NUMBER, TEXT, TRUTH = "a count", "a number", "a text", "true or false"

FORMS: Mapping[Operator, tuple[str, ...]] = {
    "not_empty": (COUNT, TEXT),
    "empty": (COUNT, TEXT),
    "equals": (COUNT, NUMBER, TEXT, TRUTH),
    "in": (COUNT, NUMBER, TEXT),
    "at_least": (COUNT, NUMBER),
    "at_most": (COUNT, NUMBER),
}

FORM_OF_KIND = {"integer": NUMBER, "float": NUMBER, "string": TEXT, "boolean": TRUTH}
FORM_OF_TYPE = {bool: TRUTH, int: NUMBER, float: NUMBER, str: TEXT}


class Wires(Protocol):
    """What the checker knows of the document around a condition."""

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """Kinds that exist, by name."""
        ...

    def report(self, path: DocumentPath, message: str) -> None:
        """Note a problem.

        Args:
            path: where in the document.
            message: what is wrong and what to do.
        """
        ...

    def kinds_given(self, path: DocumentPath, selector: Selector) -> tuple[str, ...]:
        """Return the kinds of what a selector stands for; report a selector of nothing.

        Args:
            path: where the selector is.
            selector: of the document.

        Returns:
            Names of kinds; none if it stands for nothing.
        """
        ...


def read_condition(declared: WhenDeclaration) -> Condition | None:
    """Make a condition of its declaration, unchecked; None if its form is wrong.

    Raises:
        ValueError: if a text is no selector.
    """
    if _forms_given(declared) != 1:
        return None
    if declared.not_ is not None:
        part = read_condition(declared.not_)
        return None if part is None else Not(part)
    for listed, make in ((declared.all_, AllOf), (declared.any_, AnyOf)):
        if listed is not None:
            parts = [read_condition(one) for one in listed]
            whole = tuple(part for part in parts if part is not None)
            return make(whole) if len(whole) == len(parts) else None
    if declared.value is ... or declared.is_ is None:
        return None
    to = None if declared.to is ... else parse_selectors(declared.to)
    return Comparison(parse_selectors(declared.value), declared.is_, to)


def check_condition(declared: WhenDeclaration, path: DocumentPath, wires: Wires) -> None:
    """Report what is wrong with a condition, and with each of its parts.

    Args:
        declared: as it is written.
        path: where in the document.
        wires: knows the kinds of what is compared, and collects problems.
    """
    if _forms_given(declared) != 1:
        wires.report(path, "a condition is one of: 'value' with 'is', 'all', 'any', 'not'.")
        return
    if declared.not_ is not None:
        check_condition(declared.not_, (*path, "not"), wires)
    for name, listed in (("all", declared.all_), ("any", declared.any_)):
        for index, one in enumerate(listed or ()):
            check_condition(one, (*path, name, index), wires)
    if declared.value is not ... or declared.is_ is not None:
        _check_comparison(declared, path, wires)


def _forms_given(declared: WhenDeclaration) -> int:
    compares = declared.value is not ... or declared.is_ is not None or declared.to is not ...
    others = (declared.all_, declared.any_, declared.not_)
    return compares + sum(one is not None for one in others)


def _check_comparison(declared: WhenDeclaration, path: DocumentPath, wires: Wires) -> None:
    if declared.value is ... or declared.is_ is None:
        lacks, has = ("value", "is") if declared.value is ... else ("is", "value")
        wires.report(path, f"{lacks!r} is required beside {has!r}.")
        return
    try:
        value, to = parse_selectors(declared.value), parse_selectors(declared.to)
    except ValueError as error:
        wires.report(path, f"{error}.")
        return
    if not _is_selector(value):
        wires.report((*path, "value"), f"'value' wants a selector, got {value!r}.")
        return
    needs_to = declared.is_ not in ("not_empty", "empty")
    if needs_to != (to is not ...):
        what = (
            f"wants 'to', which {declared.value} is compared with" if needs_to else "takes no 'to'"
        )
        wires.report((*path, "is" if needs_to else "to"), f"{declared.is_!r} {what}.")
        return
    kinds = wires.kinds_given((*path, "value"), value)
    forms = _forms_of(kinds, wires.kinds)
    fitting = [form for form in FORMS[declared.is_] if form in forms]
    if kinds and not fitting:
        wires.report(
            (*path, "is"),
            f"{declared.is_!r} goes with {_either(FORMS[declared.is_])} (detections and lists are "
            f"counted), but {value} is {' or '.join(kinds)}.",
        )
    elif kinds and needs_to:
        _check_to(declared.is_, to, fitting, (*path, "to"), wires)


def _check_to(
    operator: Operator, to: Any, fitting: Sequence[str], path: DocumentPath, wires: Wires
) -> None:
    """Compare the form of ``to`` with the forms that the value may have."""
    wanted = {NUMBER if form == COUNT else form for form in fitting}
    text = _either(sorted(wanted))
    if _is_selector(to):
        kinds = wires.kinds_given(path, to)
        listed = operator == "in" and "list_of_values" in kinds
        if (
            kinds
            and not listed
            and (operator == "in" or not wanted & _forms_of(kinds, wires.kinds))
        ):
            what = "a list" if operator == "in" else text
            wires.report(path, f"{operator!r} wants {what} here, but {to} is {' or '.join(kinds)}.")
        return
    if operator == "in" and not (isinstance(to, list) and to):
        wires.report(path, f"'in' wants a list of {text}, got {to!r}.")
        return
    for one in to if operator == "in" else [to]:
        if FORM_OF_TYPE.get(type(one)) not in wanted:
            wires.report(path, f"{operator!r} wants {text} here, got {one!r}.")


def _forms_of(kinds: Sequence[str], known: Mapping[str, Kind]) -> set[str]:
    """How values of some kinds can be compared; of any kind in every way."""
    forms: set[str] = set()
    for name in kinds:
        kind = find_kind(name, known)
        if name == ANY:
            forms |= {COUNT, NUMBER, TEXT, TRUTH}
        elif name in FORM_OF_KIND:
            forms.add(FORM_OF_KIND[name])
        elif kind is not None and kind.counted:
            forms.add(COUNT)
    return forms


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)


def _is_selector(value: Any) -> bool:
    return isinstance(value, Selector)
