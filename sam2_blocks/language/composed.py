"""A pipeline as a block: its manifest, and how its steps become steps of the one that uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from pydantic import PrivateAttr

from sam2_blocks.kinds import LIST_OF
from sam2_blocks.language.flow import rewire_condition
from sam2_blocks.language.manifest import (
    PARAM_KINDS,
    Hints,
    Input,
    Manifest,
    Output,
    Param,
    ParamType,
    ResourceNeeds,
)
from sam2_blocks.language.pipeline import EACH, Pipeline, Step
from sam2_blocks.language.selectors import DefaultRef, EachRef, InputRef, StepRef, rewire
from sam2_blocks.language.written import InputDeclaration

ENTRY = "sam2_blocks.language.composed:PipelineManifest"
"""Stands where a block's class is named; nothing loads it, for the pipeline's steps run instead."""

PARAM_TYPES: dict[str, ParamType] = {PARAM_KINDS[name][0]: name for name in get_args(ParamType)}


class PipelineManifest(Manifest):
    """A pipeline that other pipelines and hosts use like a block."""

    _pipeline: Pipeline = PrivateAttr()

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline, checked."""
        return self._pipeline


def as_block(pipeline: Pipeline, block_id: str) -> PipelineManifest:
    """Describe a pipeline as a block.

    Its inputs are inputs; those that may be written out, such as texts and numbers, are parameters,
    with the bounds and the format of the one parameter that they are wired to.

    Args:
        pipeline: the pipeline.
        block_id: what it is called in messages, or its id in hosts.
    """
    params = {name: _param(pipeline, name) for name in pipeline.inputs}
    manifests = [step.manifest for step in pipeline.steps]
    access = {manifest.file_access for manifest in manifests}
    hints = [manifest.resources.hints for manifest in manifests]
    made = PipelineManifest.model_construct(
        manifest_version=1,
        id=block_id,
        title=pipeline.title or block_id,
        summary=pipeline.description or f"The pipeline {pipeline.source}.",
        entry=ENTRY,
        inputs={
            name: _input(given) for name, given in pipeline.inputs.items() if params[name] is None
        },
        params={name: param for name, param in params.items() if param is not None},
        outputs={
            name: Output(kind=list(pipeline.kinds_of(selector)))
            for name, selector in pipeline.outputs.items()
        },
        requires={module: pip for one in manifests for module, pip in one.requires.items()},
        file_access=next((name for name in ("write", "read") if name in access), "none"),
        resumable=all(one.resumable for one in manifests if one.file_access == "write"),
        resources=ResourceNeeds(
            hints=next((hint for hint in hints if hint.accelerator != "none"), Hints())
        ),
    )
    made._pipeline = pipeline
    return made


def _input(given: InputDeclaration) -> Input:
    return Input(kind=list(given.kinds), description=given.description, required=given.required)


def _param(pipeline: Pipeline, name: str) -> Param | None:
    declared = pipeline.inputs[name]
    type_ = PARAM_TYPES.get(declared.kinds[0]) if len(declared.kinds) == 1 else None
    if type_ is None:
        return None
    wired = [param for param in _params_wired(pipeline, name) if param.type == type_]
    model = wired[0] if wired and all(_alike(wired[0], other) for other in wired) else None
    text = declared.description or (model.description if model else f"The input {name}.")
    if model is None:
        return Param(type=type_, description=text, **_default(declared))
    return model.model_copy(update={"description": text, "default": declared.default})


def _default(declared: InputDeclaration) -> dict[str, Any]:
    return {} if declared.required else {"default": declared.default}


def _params_wired(pipeline: Pipeline, name: str) -> Iterator[Param]:
    for step in pipeline.steps:
        for key, value in step.values.items():
            if value == InputRef(name) and key in step.manifest.params:
                yield step.manifest.params[key]


def _alike(one: Param, other: Param) -> bool:
    apart = {"description": "", "default": None}
    return one.model_copy(update=apart) == other.model_copy(update=apart)


@dataclass(frozen=True)
class Expanded:
    """What a step that uses a pipeline becomes.

    Attributes:
        steps: the steps of that pipeline, called ``outer.inner``.
        outputs: what the outputs of the step stand for now.
    """

    steps: tuple[Step, ...]
    outputs: Mapping[StepRef, Any]


@dataclass(frozen=True)
class Rewired:
    """Outputs of steps that are no more, and what they stand for."""

    stands_for: dict[StepRef, Any] = field(default_factory=dict)

    def through(self, ref: InputRef | StepRef) -> Any:
        """What a selector of the document stands for once everything is put together."""
        return self.stands_for.get(ref, ref) if isinstance(ref, StepRef) else ref


def expand(outer: Step, pipeline: Pipeline) -> Expanded:
    """Put the steps of a pipeline in the place of the step that uses it.

    What is wired into the step takes the place of the pipeline's inputs.

    Args:
        outer: the step; if it is repeated, no step of the pipeline is, nor has a condition.
        pipeline: what it uses.
    """

    def place(ref: InputRef | StepRef) -> Any:
        if isinstance(ref, InputRef):
            return outer.values.get(ref.name, _given_default(pipeline.inputs[ref.name]))
        inner = StepRef(f"{outer.id}.{ref.step}", ref.output)
        return EachRef(inner) if outer.repeated else inner

    def place_list(ref: InputRef | StepRef) -> Any:
        placed = place(ref)
        return placed.of if outer.repeated and isinstance(ref, StepRef) else placed

    outputs: dict[StepRef, Any] = {}
    for name, selector in pipeline.outputs.items():
        plain = selector.of if outer.repeated and isinstance(selector, DefaultRef) else selector
        outputs[StepRef(outer.id, name)] = rewire(plain, place_list)
    if outer.for_each is not None:
        outputs.setdefault(StepRef(outer.id, EACH), outer.for_each.of)
    return Expanded(tuple(_placed(step, outer, place) for step in pipeline.steps), outputs)


def rewire_step(step: Step, change: Callable[[InputRef | StepRef], Any]) -> Step:
    """Replace what a step is wired to."""
    return replace(
        step,
        values={name: rewire(value, change) for name, value in step.values.items()},
        when=tuple(rewire_condition(one, lambda v: rewire(v, change)) for one in step.when),
        for_each=rewire(step.for_each, change),
    )


def list_kinds(kinds: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Kinds of the outputs of a step once it is repeated."""
    return {name: tuple(f"{LIST_OF}{kind}" for kind in of) for name, of in kinds.items()}


def _placed(inner: Step, outer: Step, place: Callable[[InputRef | StepRef], Any]) -> Step:
    made = rewire_step(inner, place)
    made = replace(made, id=f"{outer.id}.{inner.id}", when=(*outer.when, *made.when))
    if not outer.repeated:
        return made
    kinds = list_kinds(inner.output_kinds)
    return replace(made, for_each=outer.for_each, on_error=outer.on_error, output_kinds=kinds)


def _given_default(declared: InputDeclaration) -> Any:
    return None if declared.required else declared.default
