"""Values of inputs that are the same for all items, checked as the parameters that they become.

A device or a number that no step takes then fails once, before anything runs, and not an item at
a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from sam2_blocks.kinds import kinds_named, parse_value
from sam2_blocks.language.manifest import Param
from sam2_blocks.language.selectors import InputRef

if TYPE_CHECKING:
    from sam2_blocks.language.pipeline import Pipeline, Step, ValueCheck


def wrong_constants(
    pipeline: Pipeline, values: Mapping[str, Any], checks: Mapping[str, ValueCheck]
) -> Iterator[tuple[str, str]]:
    """Find values that a parameter which they are wired to does not take.

    Args:
        pipeline: the pipeline.
        values: of its inputs, by name; None is none.
        checks: by the format of a parameter, what is wrong with a value.

    Yields:
        Input, and what is wrong with its value.
    """
    given = {InputRef(name): value for name, value in values.items() if value is not None}
    for step in pipeline.steps:
        for key, selector in step.values.items():
            param = step.manifest.params.get(key)
            if param is None or not isinstance(selector, InputRef) or selector not in given:
                continue
            kinds = kinds_named(pipeline.inputs[selector.name].kinds, pipeline.kinds)
            try:
                value = parse_value(given[selector], kinds)
                wrong = _wrong(param, key, value, step, given, checks)
            except (TypeError, ValueError) as error:
                wrong = str(error)
            if wrong:
                yield selector.name, f"as {key!r} of step {step.id!r}: {wrong}"


def checked_inputs(pipeline: Pipeline, checks: Mapping[str, ValueCheck]) -> frozenset[str]:
    """Name the inputs whose values can be checked before they are used, such as names of models.

    Args:
        pipeline: the pipeline.
        checks: by the format of a parameter.
    """
    return frozenset(
        selector.name
        for step in pipeline.steps
        for key, selector in step.values.items()
        if isinstance(selector, InputRef)
        and (param := step.manifest.params.get(key)) is not None
        and param.format in checks
    )


def _wrong(
    param: Param,
    key: str,
    value: object,
    step: Step,
    given: Mapping[InputRef, Any],
    checks: Mapping[str, ValueCheck],
) -> str:
    try:
        value = TypeAdapter(param.python_type).validate_python(value)
    except ValidationError as error:
        return str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
    check = checks.get(param.format or "")
    if check is None:
        return ""
    settings = {name: one.default for name, one in step.manifest.params.items()}
    for name, one in step.values.items():
        settings[name] = given.get(one, one) if isinstance(one, InputRef) else one
    texts = value if isinstance(value, list) else [value]
    found = (
        check(param, text, {**settings, key: value}) for text in texts if isinstance(text, str)
    )
    return next(filter(None, found), "")
