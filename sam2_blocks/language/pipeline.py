"""The pipeline format, and the checked graph a pipeline becomes before any model loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from sam2_blocks.errors import PipelineError, Problem, did_you_mean
from sam2_blocks.formats.plain import DumpOptions
from sam2_blocks.kinds import Kind, dump_value, find_kind, kinds_named, parse_value
from sam2_blocks.language.documents import (
    Document,
    DocumentPath,
    data_document,
    parse_yaml,
    validation_problems,
)
from sam2_blocks.language.manifest import (
    Manifest,
    Name,
    Output,
    Param,
    Section,
    Socket,
    sockets_fit,
)
from sam2_blocks.language.selectors import (
    InputRef,
    Selector,
    StepRef,
    iter_selectors,
    parse_selectors,
)
from sam2_blocks.language.unknown import unknown_block, unknown_blocks

ValueCheck = Callable[[Param, str], str]
"""``check(param, value)`` says what is wrong with a value; empty if nothing is."""


class InputDeclaration(Socket):
    """One input of a pipeline; without ``default`` it must be given for every run."""

    default: Any = Field(default_factory=lambda: ...)

    @property
    def required(self) -> bool:
        """Whether a run must give it."""
        return self.default is ...


class StepDeclaration(Section):
    """One step: which block, and what is wired into it."""

    use: str
    with_: dict[str, Any] = Field(alias="with", default_factory=dict)


class PipelineDocument(Section):
    """A pipeline file as written."""

    pipeline_version: Literal[1]
    title: str = ""
    description: str = ""
    inputs: dict[Name, InputDeclaration]
    steps: Annotated[dict[Name, StepDeclaration], Field(min_length=1)]
    outputs: Annotated[dict[Name, str], Field(min_length=1)]


@dataclass(frozen=True)
class Step:
    """A checked step.

    Attributes:
        id: its name in the pipeline.
        manifest: the block it uses.
        values: literal values and `Selector` objects by input or parameter name.
        item_model: pydantic model that every item is validated with at run time.
    """

    id: str
    manifest: Manifest
    values: Mapping[str, Any]
    item_model: type[BaseModel]


@dataclass(frozen=True)
class Pipeline:
    """A checked graph, immutable, with its steps in an order in which they can run.

    Attributes:
        source: file name for messages.
        inputs: declared inputs; defaults are already values of their kind.
        steps: topological order, ties as written.
        outputs: selectors by output name.
        kinds: the kinds it was checked with.
        warnings: what works but looks like a mistake.
    """

    source: str
    inputs: Mapping[str, InputDeclaration]
    steps: tuple[Step, ...]
    outputs: Mapping[str, Selector]
    kinds: Mapping[str, Kind]
    warnings: tuple[Problem, ...] = ()

    def kinds_of(self, selector: Selector) -> tuple[str, ...]:
        """Kinds of the value a selector of this pipeline stands for."""
        if isinstance(selector, InputRef):
            return self.inputs[selector.name].kinds
        step = next(step for step in self.steps if step.id == selector.step)
        return step.manifest.outputs[selector.output].kinds

    def dump(self, name: str, value: Any, options: DumpOptions | None = None) -> Any:
        """Make plain data of the value of an output, by its kind.

        Raises:
            TypeError: if it cannot be plain data; the message names the output.
        """
        kinds = kinds_named(self.kinds_of(self.outputs[name]), self.kinds)
        try:
            return dump_value(value, kinds, options)
        except TypeError as error:
            raise TypeError(f"output {name!r}: {error}") from error


def load_pipeline(
    source: str | Path | Mapping[str, Any],
    manifests: Mapping[str, Manifest],
    kinds: Mapping[str, Kind],
    *,
    checks: Mapping[str, ValueCheck] | None = None,
) -> Pipeline:
    """Read and check a pipeline; `Plugins.load_pipeline` checks names of models and devices, too.

    Args:
        source: path of a YAML file, or the document as plain data.
        manifests: blocks that may be used, by id.
        kinds: kinds that exist, by name.
        checks: by the format of a parameter, what is wrong with a value that is written out.

    Raises:
        PipelineError: with every problem found, each with file, line and column.

    Example:
        >>> plugins = load_plugins(points=[])
        >>> pipeline = load_pipeline("examples/points.yaml", plugins.manifests, plugins.kinds)
        >>> [step.id for step in pipeline.steps]
        ['embed', 'segment', 'draw']
    """
    if isinstance(source, Mapping):
        return check_pipeline(data_document(dict(source), "pipeline"), manifests, kinds, checks)
    try:
        text = Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(str(source), [Problem(f"cannot be read: {error}")]) from error
    return check_pipeline(parse_yaml(text, str(source)), manifests, kinds, checks)


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
) -> Pipeline:
    """Check a parsed document; see `load_pipeline`."""
    if document.problems:
        raise PipelineError(document.source, document.problems)
    try:
        written = PipelineDocument.model_validate(document.data)
    except ValidationError as error:
        problems = validation_problems(document, error, PipelineDocument)
        problems += unknown_blocks(document, manifests)
        raise PipelineError(document.source, problems) from None
    return _Checker(document, written, manifests, kinds, checks or {}).check()


class _Checker:
    """Collects the problems of one document; lives for one check."""

    def __init__(
        self,
        document: Document,
        written: PipelineDocument,
        manifests: Mapping[str, Manifest],
        kinds: Mapping[str, Kind],
        checks: Mapping[str, ValueCheck],
    ) -> None:
        self.checks = checks
        self.document = document
        self.written = written
        self.manifests = manifests
        self.kinds = kinds
        self.problems: list[Problem] = []
        self.models: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {}

    def check(self) -> Pipeline:
        inputs = {name: self.check_input(name) for name in self.written.inputs}
        steps = {name: self.check_step(name) for name in self.written.steps}
        outputs = {name: self.check_output(name) for name in self.written.outputs}
        order = self.sort_steps({name: step for name, step in steps.items() if step})
        if self.problems:
            once = dict.fromkeys(self.problems)
            problems = sorted(once, key=lambda found: (found.line or 0, found.column or 0))
            raise PipelineError(self.document.source, problems)
        return Pipeline(
            source=self.document.source,
            inputs=inputs,
            steps=tuple(order),
            outputs={name: selector for name, selector in outputs.items() if selector},
            kinds=self.kinds,
            warnings=(*self.find_deprecated(order), *self.find_unused(order, outputs)),
        )

    def report(self, path: DocumentPath, message: str) -> None:
        self.problems.append(self.document.problem(path, message))

    def check_input(self, name: str) -> InputDeclaration:
        declared = self.written.inputs[name]
        known = kinds_named(declared.kinds, self.kinds)
        for kind in declared.kinds:
            if find_kind(kind, self.kinds) is None:
                hint = did_you_mean(kind, self.kinds)
                self.report(("inputs", name, "kind"), f"unknown kind {kind!r}.{hint}")
        if declared.required or declared.default is None or not known:
            return declared
        literal = [kind for kind in known if kind.literal]
        if not literal:
            message = (
                f"a value of kind {declared.kind} cannot be written out; leave the default out."
            )
            self.report(("inputs", name, "default"), message)
            return declared
        try:
            default = parse_value(declared.default, literal)
        except (TypeError, ValueError) as error:
            self.report(("inputs", name, "default"), f"the default is no {declared.kind}: {error}")
            return declared
        return declared.model_copy(update={"default": default})

    def check_step(self, name: str) -> Step | None:
        step = self.written.steps[name]
        manifest = self.manifests.get(step.use)
        if manifest is None:
            self.report(("steps", name, "use"), unknown_block(step.use, self.manifests))
            return None
        path = ("steps", name, "with")
        given: dict[str, Any] = {}
        for key, value in step.with_.items():
            try:
                given[key] = parse_selectors(value)
            except ValueError as error:
                self.report((*path, key), f"{error}.")
                given[key] = InputRef("")  # stands in, so that the input does not count as missing
        values = self.check_literals(manifest, path, given)
        for key in given:
            if key in manifest.names:
                self.check_wires(name, manifest, key, given[key])
        for rule in manifest.unmet_groups(given):
            self.report(path, rule)
        return Step(name, manifest, values, self.models_of(manifest)[1])

    def models_of(self, manifest: Manifest) -> tuple[type[BaseModel], type[BaseModel]]:
        """A block's step and item models, made once for all steps that use it."""
        if manifest.id not in self.models:
            made = manifest.step_model(self.kinds), manifest.item_model(self.kinds)
            self.models[manifest.id] = made
        return self.models[manifest.id]

    def check_literals(
        self, manifest: Manifest, path: DocumentPath, given: dict[str, Any]
    ) -> Mapping[str, Any]:
        model, _ = self.models_of(manifest)
        try:
            checked = model.model_validate(given)
        except ValidationError as error:
            self.problems += validation_problems(self.document, error, model, path)
            return {}
        values = {key: getattr(checked, key) for key in given}
        for key, value in values.items():
            self.check_format(manifest.params.get(key), (*path, key), value)
        return values

    def check_format(self, param: Param | None, path: DocumentPath, value: object) -> None:
        """Check a value that names something which exists outside of the document."""
        check = self.checks.get(param.format or "") if param else None
        if check is not None and param is not None and isinstance(value, str):
            wrong = check(param, value)
            if wrong:
                self.report(path, wrong)

    def check_wires(self, step: str, manifest: Manifest, key: str, value: Any) -> None:
        path = ("steps", step, "with", key)
        whole = isinstance(value, InputRef | StepRef)
        socket = manifest.inputs.get(key)
        if socket is not None and not whole and any(iter_selectors(value)):
            self.report(path, f"input {key!r} takes one selector, not a selector inside a value.")
        wanted = (socket or manifest.params[key]).kinds
        for selector in iter_selectors(value):
            given = self.kinds_given(path, selector)
            if given and whole and not sockets_fit(given, wanted):
                self.report(
                    path,
                    f"input {key!r} of {manifest.id} wants {' or '.join(wanted)}, "
                    f"but {selector} is {' or '.join(given)}.",
                )

    def check_output(self, name: str) -> Selector | None:
        path = ("outputs", name)
        try:
            selector = parse_selectors(self.written.outputs[name])
        except ValueError as error:
            self.report(path, f"{error}.")
            return None
        if not isinstance(selector, InputRef | StepRef):
            self.report(path, f"an output wants a selector, got {selector!r}.")
            return None
        self.kinds_given(path, selector)
        return selector

    def kinds_given(self, path: DocumentPath, selector: Selector) -> tuple[str, ...]:
        """Kinds of what a selector names; reports and returns nothing where it names nothing."""
        if isinstance(selector, InputRef):
            if selector.name in self.written.inputs:
                return self.written.inputs[selector.name].kinds
            if selector.name:
                hint = did_you_mean(selector.name, self.written.inputs)
                self.report(path, f"the pipeline has no input {selector.name!r}.{hint}")
            return ()
        if selector.step not in self.written.steps:
            hint = did_you_mean(selector.step, self.written.steps)
            self.report(path, f"there is no step {selector.step!r}.{hint}")
            return ()
        manifest = self.manifests.get(self.written.steps[selector.step].use)
        if manifest is None:
            return ()  # the unknown block is reported at its own step
        if selector.output not in manifest.outputs:
            hint = did_you_mean(selector.output, manifest.outputs)
            self.report(path, f"{manifest.id} has no output {selector.output!r}.{hint}")
            return ()
        return self.kinds_made(selector)

    def kinds_made(self, selector: StepRef) -> tuple[str, ...]:
        """Kinds of a step's output; one that is the same as an input has what is wired there."""
        kinds: tuple[str, ...] = ()
        passed: dict[StepRef, tuple[str, ...]] = {}  # what each output on the way may be
        source: Selector | None = selector
        while isinstance(source, StepRef) and source not in passed:  # a cycle ends, too
            output = self.output_of(source)
            if output is None:
                break
            passed[source] = output.kinds
            source = self.wired_to(source.step, output.same_as)
        if isinstance(source, InputRef) and source.name in self.written.inputs:
            kinds = self.written.inputs[source.name].kinds
        for possible in reversed(passed.values()):
            kinds = tuple(kind for kind in possible if kind in kinds) or possible
        return kinds

    def output_of(self, selector: StepRef) -> Output | None:
        """What a selector names, if it names something."""
        step = self.written.steps.get(selector.step)
        manifest = self.manifests.get(step.use) if step else None
        return manifest.outputs.get(selector.output) if manifest else None

    def wired_to(self, step: str, key: str) -> Selector | None:
        """What a step's input takes, if that is all of a value; mistakes are reported there."""
        try:
            wired = parse_selectors(self.written.steps[step].with_.get(key))
        except ValueError:
            return None
        return wired if isinstance(wired, InputRef | StepRef) else None

    def sort_steps(self, steps: Mapping[str, Step]) -> list[Step]:
        needs = {
            name: [ref.step for ref in _step_refs(self.written.steps[name].with_)] for name in steps
        }
        sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(steps, ()))
        for name, refs in needs.items():
            sorter.add(name, *(ref for ref in refs if ref in steps))
        try:
            return [steps[name] for name in sorter.static_order()]
        except CycleError as error:
            loop = [str(name) for name in error.args[1]]
            self.report(("steps", loop[0]), f"steps form a cycle: {' → '.join(loop)}.")
            return []

    def find_deprecated(self, order: Sequence[Step]) -> Iterator[Problem]:
        for step in order:
            if step.manifest.deprecated:
                message = f"{step.manifest.id} is deprecated: {step.manifest.deprecated}"
                yield self.document.problem(("steps", step.id, "use"), message)

    def find_unused(
        self, order: Sequence[Step], outputs: Mapping[str, Selector | None]
    ) -> Iterator[Problem]:
        wired = [list(outputs.values()), *(dict(step.values) for step in order)]
        used = {ref.step for ref in iter_selectors(wired) if isinstance(ref, StepRef)}
        for step in order:
            if step.id not in used and step.manifest.file_access != "write":
                message = "nothing uses the outputs of this step; remove it or name an output."
                yield self.document.problem(("steps", step.id), message)


def _step_refs(value: Any) -> Iterator[StepRef]:
    try:
        parsed = parse_selectors(value)
    except ValueError:
        return
    for selector in iter_selectors(parsed):
        if isinstance(selector, StepRef):
            yield selector
