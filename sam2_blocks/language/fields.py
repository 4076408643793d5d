"""What pydantic checks the values of a step and of an item with, by the kinds of their sockets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidatorFunctionWrapHandler, WrapValidator

from sam2_blocks.errors import as_error, message_of
from sam2_blocks.kinds import Kind, check_value, kinds_named, parse_value
from sam2_blocks.language.selectors import iter_selectors


def unless_selector(annotation: Any) -> Any:
    """Annotate a field of a step so that it is checked unless it holds a selector.

    Args:
        annotation: what a value that is written out must be.
    """

    def validate(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        return value if any(iter_selectors(value)) else check(value)

    return Annotated[annotation, WrapValidator(validate)]


def written_value(names: Iterable[str], kinds: Mapping[str, Kind], *, required: bool) -> Any:
    """Annotate an input of a step: a selector, or a value of one of its kinds.

    Args:
        names: of the input's kinds.
        kinds: those that exist.
        required: whether None is refused.

    Returns:
        A type for pydantic, which refuses values of kinds that cannot be written out.
    """
    wanted = " or ".join(names)
    accepted = [kind for kind in kinds_named(names, kinds) if kind.literal]

    def parse(value: object) -> object:
        if value is None and not required:
            return None
        if not accepted:
            raise ValueError(f"wants a selector to a value of kind {wanted}, got {value!r}")
        try:
            return parse_value(value, accepted)
        except BaseException as error:  # a plugin's kind may fail in any way
            raise ValueError(message_of(as_error(error))) from error

    return unless_selector(Annotated[Any, AfterValidator(parse)])


def checked_value(names: Iterable[str], kinds: Mapping[str, Kind], *, many: bool) -> Any:
    """Annotate an input of an item at run time: a value of one of its kinds.

    Args:
        names: of the input's kinds.
        kinds: those that exist.
        many: whether it is a list of such values, one at least.

    Returns:
        A type for pydantic.
    """
    checked: Any = Annotated[Any, AfterValidator(_kind_checker(kinds_named(names, kinds)))]
    if many:
        return Annotated[list.__class_getitem__(checked), Field(min_length=1)]
    return checked


def class_name(block_id: str, suffix: str) -> str:
    """Name a pydantic model of a block, such as ``Sam2SegmentV1Item``.

    Args:
        block_id: such as ``sam2/segment@v1``.
        suffix: what the model is of: ``Step`` or ``Item``.
    """
    return "".join(part.title() for part in re.split(r"\W|_", block_id)) + suffix


def _kind_checker(accepted: list[Kind]) -> Callable[[Any], Any]:
    def check(value: object) -> Any:
        try:
            return check_value(value, accepted)
        except BaseException as error:  # a plugin's kind may fail in any way
            raise ValueError(message_of(as_error(error))) from error

    return check
