"""The pipeline format: what a file says, before anybody asked whether it means something."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sam2_blocks.language.manifest import Name, Section, Socket

Operator = Literal["not_empty", "empty", "equals", "in", "at_least", "at_most"]


def _left_out() -> Any:
    return ...


class InputDeclaration(Socket):
    """One input of a pipeline; without ``default`` it must be given for every run."""

    default: Any = Field(default_factory=_left_out)

    @property
    def required(self) -> bool:
        """Whether a run must give it."""
        return self.default is ...


class WhenDeclaration(Section):
    """A condition: one comparison, or several under ``all``, ``any`` or ``not``.

    Attributes:
        value: a selector, whose value is compared; of detections and lists it is their number.
        is_: how.
        to: with what: a number, a text, a truth value, for ``in`` a list of them, or a selector.
        all_: conditions that must all hold.
        any_: conditions of which one must hold.
        not_: a condition that must not hold.
    """

    value: Any = Field(default_factory=_left_out)
    is_: Operator | None = Field(alias="is", default=None)
    to: Any = Field(default_factory=_left_out)
    all_: Annotated[list[WhenDeclaration], Field(min_length=1)] | None = Field(
        alias="all", default=None
    )
    any_: Annotated[list[WhenDeclaration], Field(min_length=1)] | None = Field(
        alias="any", default=None
    )
    not_: WhenDeclaration | None = Field(alias="not", default=None)


class StepDeclaration(Section):
    """One step: which block or pipeline, what is wired into it, whether and how often it runs.

    Attributes:
        use: id of a block.
        uses: path of a pipeline, from the folder of this one.
        with_: values and selectors by input and parameter.
        when: the step is skipped for items where this does not hold.
        for_each: a selector of a list; the step runs for every element.
        on_error: whether an element that fails fails the item, or is dropped.
    """

    use: str = ""
    uses: str = ""
    with_: dict[str, Any] = Field(alias="with", default_factory=dict)
    when: WhenDeclaration | None = None
    for_each: str | None = None
    on_error: Literal["fail", "drop"] | None = None


class OutputDeclaration(Section):
    """One output of a pipeline; may be written as the selector alone.

    Attributes:
        value: a selector.
        default: what it is where the step that makes it is skipped; ``empty`` for detections.
    """

    value: str
    default: Any = Field(default_factory=_left_out)

    @model_validator(mode="before")
    @classmethod
    def _take_a_selector(cls, given: Any) -> Any:
        return {"value": given} if isinstance(given, str) else given


class PipelineDocument(Section):
    """A pipeline file as written."""

    pipeline_version: Literal[1]
    title: str = ""
    description: str = ""
    inputs: dict[Name, InputDeclaration]
    steps: Annotated[dict[Name, StepDeclaration], Field(min_length=1)]
    outputs: Annotated[dict[Name, OutputDeclaration], Field(min_length=1)]
