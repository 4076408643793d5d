"""Pipelines: the checked graph that a document becomes before any model loads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from sam2_blocks.errors import PipelineError, Problem
from sam2_blocks.formats.plain import DumpOptions
from sam2_blocks.kinds import ANY, Kind, dump_value, kind_of_element, kinds_named
from sam2_blocks.language.constants import wrong_constants
from sam2_blocks.language.documents import (
    Document,
    data_document,
    parse_yaml,
    read_pipeline_text,
)
from sam2_blocks.language.flow import Condition, condition_values
from sam2_blocks.language.manifest import Manifest, Param
from sam2_blocks.language.selectors import (
    DefaultRef,
    EachRef,
    IndexRef,
    InputRef,
    Selector,
    StepRef,
    iter_refs,
    iter_selectors,
    parse_selectors,
)
from sam2_blocks.language.written import InputDeclaration

ValueCheck = Callable[[Param, str, Mapping[str, Any]], str]
"""``check(param, value, settings)`` says what is wrong with a value that is written out for a
parameter, or returns an empty text; ``settings`` are all parameters of the step, by name."""

EACH = "each"
"""Name of one more output of a repeated step: the elements that its other outputs belong to."""


@dataclass(frozen=True)
class Step:
    """A checked step.

    Attributes:
        id: its name in the pipeline; ``outer.inner`` if it is inside a pipeline that a step uses.
        manifest: the block it uses.
        values: literal values and `Selector` objects by input or parameter name.
        item_model: pydantic model that every item is validated with at run time.
        when: conditions; the step is skipped for an item for which one does not hold.
        for_each: ``$each`` of the list that the step is repeated over; None if it runs once for an
            item.
        on_error: what an element that fails does: ``fail`` the item, or ``drop`` the element.
        output_kinds: kinds of its outputs by name, as they are in this pipeline.
    """

    id: str
    manifest: Manifest
    values: Mapping[str, Any]
    item_model: type[BaseModel]
    when: tuple[Condition, ...] = ()
    for_each: EachRef | None = None
    on_error: Literal["fail", "drop"] = "fail"
    output_kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def repeated(self) -> bool:
        """Whether it runs for every element of a list."""
        return self.for_each is not None


@dataclass(frozen=True)
class Pipeline:
    """A checked graph, immutable, with its steps in an order in which they can run.

    The steps of pipelines that it uses are among its own.

    Attributes:
        source: file name for messages.
        inputs: declared inputs; defaults are already values of their kind.
        steps: topological order, ties as written.
        outputs: selectors by output name; with a default, a `DefaultRef`.
        kinds: the kinds it was checked with.
        warnings: what works but looks like a mistake.
        title: of the document.
        description: of the document.
        files: this file and those of pipelines that it uses.
    """

    source: str
    inputs: Mapping[str, InputDeclaration]
    steps: tuple[Step, ...]
    outputs: Mapping[str, Selector]
    kinds: Mapping[str, Kind]
    warnings: tuple[Problem, ...] = ()
    title: str = ""
    description: str = ""
    files: tuple[Path, ...] = ()

    def kinds_of(self, selector: Selector) -> tuple[str, ...]:
        """Return the kinds that the value of a selector of this pipeline may have."""
        if isinstance(selector, InputRef):
            return self.inputs[selector.name].kinds
        if isinstance(selector, DefaultRef):
            return self.kinds_of(selector.of)
        if isinstance(selector, IndexRef):
            return ("integer",)
        if isinstance(selector, EachRef):
            if not isinstance(selector.of, Selector):
                return (ANY,)
            elements = map(kind_of_element, self.kinds_of(selector.of))
            return tuple(kind for kind in elements if kind)
        step = next(step for step in self.steps if step.id == selector.step)
        return step.output_kinds[selector.output]

    @cached_property
    def skippable(self) -> frozenset[str]:
        """Ids of steps that are skipped for some items, by ``when`` or for what they need."""
        found: set[str] = set()
        for step in self.steps:
            once = [*condition_values(step.when), step.for_each]
            for name, value in step.values.items():
                socket = step.manifest.inputs.get(name)
                if socket is None or not socket.many:
                    once.append(value)
                elif all(_is_made_by(found, entry) for entry in value):
                    found.add(step.id)
            if step.when or _is_made_by(found, once):
                found.add(step.id)
        return frozenset(found)

    def may_lack(self, output: str) -> bool:
        """Whether an output is absent for items for which steps are skipped."""
        return _is_made_by(self.skippable, [self.outputs[output]])

    def dump(self, name: str, value: Any, options: DumpOptions | None = None) -> Any:
        """Make plain data of the value of an output, by its kind.

        Args:
            name: of the output.
            value: as a run returned it.
            options: how masks are written.

        Raises:
            TypeError: if it cannot be plain data; the message names the output.
        """
        kinds = kinds_named(self.kinds_of(self.outputs[name]), self.kinds)
        try:
            return dump_value(value, kinds, options)
        except TypeError as error:
            raise TypeError(f"output {name!r}: {error}") from error


def _is_made_by(steps: Collection[str], value: Any) -> bool:
    """Whether a value needs an output of these steps, and has no default."""
    needs = [one for one in iter_selectors(value) if not isinstance(one, DefaultRef)]
    return any(isinstance(ref, StepRef) and ref.step in steps for ref in iter_refs(needs))


def load_pipeline(
    source: str | Path | Mapping[str, Any],
    manifests: Mapping[str, Manifest],
    kinds: Mapping[str, Kind],
    *,
    checks: Mapping[str, ValueCheck] | None = None,
    packages: bool = False,
) -> Pipeline:
    """Read and check a pipeline; `Plugins.load_pipeline` checks models, devices, packages, too.

    Args:
        source: path of a YAML file, or the document as plain data.
        manifests: blocks that may be used, by id.
        kinds: kinds that exist, by name.
        checks: for parameters of a format, such as ``model``, what is wrong with their values.
        packages: whether the packages that blocks require must be installed.

    Returns:
        The checked graph; nothing is loaded or run.

    Raises:
        PipelineError: with every problem found, each with file, line and column.

    Example:
        >>> plugins = load_plugins(points=[])
        >>> pipeline = load_pipeline("examples/points.yaml", plugins.manifests, plugins.kinds)
        >>> [step.id for step in pipeline.steps]
        ['embed', 'segment', 'draw']
    """
    if isinstance(source, Mapping):
        document = data_document(dict(source), "pipeline")
        return check_pipeline(document, manifests, kinds, checks, packages=packages)
    path = Path(source)
    try:
        text = read_pipeline_text(path)
    except ValueError as error:
        raise PipelineError(str(source), [Problem(f"cannot be read: {error}")]) from error
    document = parse_yaml(text, str(source))
    return check_pipeline(document, manifests, kinds, checks, packages=packages, path=path)


def one_step(values: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Write the pipeline that is one step ``block``, all of whose outputs are its own.

    Args:
        values: the step's ``with``; what ``$inputs`` selects becomes an input of the pipeline, of
            the kinds of the socket that it is wired to.
        manifest: the block.

    Returns:
        A document for `load_pipeline`.
    """
    inputs: dict[str, Any] = {}
    for key, value in parse_selectors(dict(values)).items():
        socket = manifest.inputs.get(key) or manifest.params.get(key)
        for selector in iter_selectors(value):
            if isinstance(selector, InputRef) and socket is not None:
                inputs[selector.name] = {"kind": list(socket.kinds)}
    return {
        "pipeline_version": 1,
        "inputs": inputs,
        "steps": {"block": {"use": manifest.id, "with": dict(values)}},
        "outputs": {name: f"$steps.block.{name}" for name in manifest.outputs},
    }


def check_pipeline(
    document: Document,
    manifests: Mapping[str, Manifest],
    kinds: Mapping[str, Kind],
    checks: Mapping[str, ValueCheck] | None = None,
    *,
    packages: bool = False,
    path: Path | None = None,
) -> Pipeline:
    """Check a parsed document; see `load_pipeline`.

    Args:
        document: the pipeline.
        manifests: blocks that may be used, by id.
        kinds: kinds that exist, by name.
        checks: by the format of a parameter, what is wrong with a value that is written out.
        packages: whether the packages that blocks require must be installed.
        path: the file it came from; without one it may use no pipelines of other files.
    """
    from sam2_blocks.language.checking import Surroundings, check_document  # makes Pipelines

    around = Surroundings(manifests, kinds, checks or {}, packages)
    pipeline = check_document(document, around, path)
    inputs = pipeline.inputs.items()
    defaults = {name: one.default for name, one in inputs if not one.required}
    if wrong := [
        document.problem(("inputs", name, "default"), message)
        for name, message in wrong_constants(pipeline, defaults, around.checks)
    ]:
        raise PipelineError(document.source, wrong)
    return pipeline
