"""The checker of pipelines: every problem of a document at its place, before anything loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sam2_blocks.errors import PipelineError, Problem, did_you_mean
from sam2_blocks.kinds import Kind, find_kind, kind_of_element, kinds_named, parse_value
from sam2_blocks.language.composed import (
    PipelineManifest,
    Rewired,
    as_block,
    expand,
    rewire_step,
)
from sam2_blocks.language.documents import (
    Document,
    DocumentPath,
    in_order,
    parse_yaml,
    read_pipeline_text,
    validation_problems,
    without_unknown_keys,
)
from sam2_blocks.language.flow import Condition, check_condition, condition_values, read_condition
from sam2_blocks.language.manifest import Manifest, Param, sockets_fit
from sam2_blocks.language.pipeline import Pipeline, Step, ValueCheck
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
    resolve,
    rewire,
)
from sam2_blocks.language.unknown import unknown_block, unknown_blocks
from sam2_blocks.language.wiring import Wiring
from sam2_blocks.language.written import InputDeclaration, PipelineDocument

MOST_STEPS = 1000
"""Steps of a pipeline, with those of all that it uses."""
DEEPEST_USE = 8
"""Pipelines in pipelines."""


@dataclass(frozen=True)
class Surroundings:
    """What a document is checked with.

    Attributes:
        manifests: blocks that may be used, by id.
        kinds: kinds that exist, by name.
        checks: by the format of a parameter, what is wrong with a value that is written out.
        packages: whether the packages that blocks require must be installed.
        opened: files of the pipelines around this one, outermost first.
        used: pipelines that were read already, by file; None for one with problems.
    """

    manifests: Mapping[str, Manifest]
    kinds: Mapping[str, Kind]
    checks: Mapping[str, ValueCheck]
    packages: bool = False
    opened: tuple[Path, ...] = ()
    used: dict[Path, PipelineManifest | None] = field(default_factory=dict)


def check_document(document: Document, around: Surroundings, path: Path | None) -> Pipeline:
    """Check a parsed document; see `sam2_blocks.language.pipeline.check_pipeline`."""
    if document.problems:
        raise PipelineError(document.source, document.problems)
    try:
        written = PipelineDocument.model_validate(document.data)
    except ValidationError as error:
        found = validation_problems(document, error, PipelineDocument)
        found += _what_else_is_wrong(document, error, around, path)
        raise PipelineError(document.source, in_order(found)) from None
    return _Checker(document, written, around, path).check()


def _what_else_is_wrong(
    document: Document, error: ValidationError, around: Surroundings, path: Path | None
) -> list[Problem]:
    """Check what is left without unknown keys, if that is a pipeline; else its blocks alone."""
    try:
        known = without_unknown_keys(document.data, error, PipelineDocument)
        _Checker(document, PipelineDocument.model_validate(known), around, path).check()
    except ValidationError:
        return [*unknown_blocks(document, around.manifests)]
    except PipelineError as found:
        return [*found.problems]
    return []


class _Checker:
    """Collects the problems of one document; lives for one check."""

    def __init__(
        self, document: Document, written: PipelineDocument, around: Surroundings, path: Path | None
    ) -> None:
        self.document = document
        self.written = written
        self.around = around
        self.path = None if path is None else path.resolve()
        self.kinds = around.kinds
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.files: list[Path] = [] if path is None else [path]
        self.models: dict[int, tuple[type[BaseModel], type[BaseModel]]] = {}
        self.given: dict[str, dict[str, Any]] = {}
        self.loops: dict[str, EachRef | None] = {}

    def check(self) -> Pipeline:
        inputs = {name: self.check_input(name) for name in self.written.inputs}
        blocks = {name: self.find_block(name) for name in self.written.steps}
        for name in self.written.steps:
            self.loops[name] = self.read_loop(name)
            self.given[name] = self.read_values(name)
        order = self.sort_steps()
        self.wiring = Wiring(self.written, blocks, self.given, self.loops, self.report)
        self.wiring.find_kinds(order)
        steps = {name: self.check_step(name, blocks[name]) for name in self.written.steps}
        outputs = {name: self.check_output(name) for name in self.written.outputs}
        whole, wired = self.put_together([found for name in order if (found := steps[name])])
        if self.problems:
            raise PipelineError(self.document.source, in_order(self.problems))
        named = {name: selector for name, selector in outputs.items() if selector is not None}
        return Pipeline(
            source=self.document.source,
            inputs=inputs,
            steps=whole,
            outputs={name: rewire(one, wired.through) for name, one in named.items()},
            kinds=self.kinds,
            warnings=(*self.warnings, *self.find_deprecated(blocks), *self.find_unused(blocks)),
            title=self.written.title,
            description=self.written.description,
            files=tuple(dict.fromkeys(self.files)),
        )

    def report(self, path: DocumentPath, message: str) -> None:
        self.problems.append(self.document.problem(path, message))

    def kinds_given(self, path: DocumentPath, selector: Selector) -> tuple[str, ...]:
        return self.wiring.kinds_given(path, selector)

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

    # --- what a step uses ---------------------------------------------------------------------

    def find_block(self, name: str) -> Manifest | None:
        step = self.written.steps[name]
        if bool(step.use) == bool(step.uses):
            message = (
                "give 'use', a block, or 'uses', a pipeline; not both."
                if step.use
                else "'use' is required."
            )
            self.report(("steps", name, "use"), message)
            return None
        if step.uses:
            return self.find_pipeline(name, step.uses)
        manifest = self.around.manifests.get(step.use)
        if manifest is None:
            self.report(("steps", name, "use"), unknown_block(step.use, self.around.manifests))
        elif self.around.packages:
            for message in manifest.missing_packages():
                self.report(("steps", name, "use"), message)
        return manifest

    def find_pipeline(self, name: str, uses: str) -> Manifest | None:
        """Read the pipeline that a step uses; its problems are ours, in their own file."""
        where = ("steps", name, "uses")
        if self.path is None:
            message = "'uses' names a file beside the pipeline's own, and this one is in no file."
            self.report(where, f"{message} Register the other pipeline, or write its steps here.")
            return None
        opened = (*self.around.opened, self.path)
        file = (self.path.parent / uses).resolve()
        if file in opened:
            circle = [one.name for one in (*opened[opened.index(file) :], file)]
            self.report(where, f"pipelines use each other in a circle: {' → '.join(circle)}.")
            return None
        if len(opened) > DEEPEST_USE:
            self.report(where, f"pipelines use each other more than {DEEPEST_USE} deep.")
            return None
        if file not in self.around.used:
            self.around.used[file] = self.read_pipeline(where, file, uses, opened)
        found = self.around.used[file]
        self.files += found.pipeline.files if found else ()
        return found

    def read_pipeline(
        self, where: DocumentPath, file: Path, uses: str, opened: tuple[Path, ...]
    ) -> PipelineManifest | None:
        try:
            text = read_pipeline_text(file)
        except ValueError as error:
            self.report(where, f"{uses!r} cannot be read: {error}")
            return None
        source = str(Path(self.document.source).parent / uses)
        around = replace(self.around, opened=opened)
        try:
            pipeline = check_document(parse_yaml(text, source), around, file)
        except PipelineError as error:
            self.problems += [replace(one, source=one.source or source) for one in error.problems]
            return None
        for output, selector in pipeline.outputs.items():
            if not any(isinstance(ref, StepRef) for ref in iter_refs(selector)):
                message = f"{uses!r}: its output {output!r} is its own input; wire that instead."
                self.report(where, message)
        self.warnings += [replace(one, source=one.source or source) for one in pipeline.warnings]
        return as_block(pipeline, uses)

    # --- steps --------------------------------------------------------------------------------

    def read_loop(self, name: str) -> EachRef | None:
        step = self.written.steps[name]
        path = ("steps", name, "for_each")
        if step.for_each is None:
            if step.on_error is not None:
                self.report(("steps", name, "on_error"), "'on_error' goes with 'for_each'.")
            return None
        try:
            selector = parse_selectors(step.for_each)
        except ValueError as error:
            self.report(path, f"{error}.")
            return EachRef(InputRef(""))
        if not isinstance(selector, InputRef | StepRef):
            self.report(path, f"'for_each' wants a selector of a list, got {step.for_each!r}.")
            return EachRef(InputRef(""))
        return EachRef(selector)

    def read_values(self, name: str) -> dict[str, Any]:
        """Parse what a step is given; what is wrong does not count as missing."""
        loop = self.loops[name]
        given: dict[str, Any] = {}
        for key, value in self.written.steps[name].with_.items():
            path = ("steps", name, "with", key)
            given[key] = InputRef("")
            try:
                parsed = parse_selectors(value)
            except ValueError as error:
                self.report(path, f"{error}.")
                continue
            of_loop = [one for one in iter_selectors(parsed) if isinstance(one, EachRef | IndexRef)]
            if of_loop and loop is None:
                message = f"{of_loop[0]} is there in a step with 'for_each', and this one has none."
                self.report(path, message)
                continue
            given[key] = resolve(parsed, lambda one: loop if isinstance(one, EachRef) else one)
        return given

    def sort_steps(self) -> list[str]:
        names = self.written.steps
        sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(names, ()))
        for name in names:
            refs = iter_refs([self.given[name], self.loops[name], self.values_of_when(name)])
            needs = [ref.step for ref in refs if isinstance(ref, StepRef)]
            sorter.add(name, *(step for step in needs if step in names))
        try:
            return list(sorter.static_order())
        except CycleError as error:
            loop = [str(name) for name in error.args[1]]
            self.report(("steps", loop[0]), f"steps form a cycle: {' → '.join(loop)}.")
            return list(names)

    def values_of_when(self, name: str) -> list[Any]:
        return [value for one in self.read_when(name) for value in condition_values([one])]

    def read_when(self, name: str) -> tuple[Condition, ...]:
        declared = self.written.steps[name].when
        try:
            read = None if declared is None else read_condition(declared)
        except ValueError:  # reported by the check
            return ()
        return () if read is None else (read,)

    def check_step(self, name: str, manifest: Manifest | None) -> Step | None:
        path, step, given = ("steps", name), self.written.steps[name], self.given[name]
        if manifest is None:  # where its wires come from can be told all the same
            for key, value in given.items():
                for one in iter_selectors(value):
                    self.kinds_given((*path, "with", key), one)
            return None
        values = self.check_literals(manifest, (*path, "with"), given)
        for key in given:
            if key in manifest.names:
                self.check_wires(name, manifest, key, given[key])
        for rule in manifest.unmet_groups(given):
            self.report((*path, "with"), rule)
        loop = self.loops[name]
        if loop is not None:
            self.wiring.check_loop((*path, "for_each"), loop)
            self.check_repeatable(name, manifest)
        if step.when is not None:
            check_condition(step.when, (*path, "when"), self)
        return Step(
            name,
            manifest,
            values,
            self.models_of(manifest)[1],
            when=self.read_when(name),
            for_each=loop,
            on_error=step.on_error or "fail",
            output_kinds=self.wiring.output_kinds(name),
        )

    def check_repeatable(self, name: str, manifest: Manifest) -> None:
        """A pipeline is repeated as one: all of its steps run for all elements."""
        if not isinstance(manifest, PipelineManifest):
            return
        path = ("steps", name, "for_each")
        for step in manifest.pipeline.steps:
            what = "'for_each'" if step.repeated else "'when'" if step.when else ""
            if what:
                why = (
                    "a 'for_each' inside another" if step.repeated else "a 'when' for each element"
                )
                message = f"step {step.id!r} of {manifest.id} has {what}: {why} is not supported."
                self.report(path, f"{message} Repeat a step of a pipeline without.")
        if self.written.steps[name].on_error == "drop":
            message = "'drop' is for one block; all steps of a pipeline have the same elements."
            self.report(("steps", name, "on_error"), message)

    def models_of(self, manifest: Manifest) -> tuple[type[BaseModel], type[BaseModel]]:
        """A block's step and item models, made once for all steps that use it."""
        key = id(manifest)
        if key not in self.models:
            self.models[key] = manifest.step_model(self.kinds), manifest.item_model(self.kinds)
        return self.models[key]

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
        defaults = {name: param.default for name, param in manifest.params.items()}
        for key in values:
            if key in manifest.params:
                self.check_format(manifest.params[key], (*path, key), {**defaults, **values})
        return values

    def check_format(self, param: Param, path: DocumentPath, settings: Mapping[str, Any]) -> None:
        """Check a value that names something which exists outside of the document, or several."""
        check = self.around.checks.get(param.format or "")
        if check is None:
            return
        value = settings[str(path[-1])]
        named: dict[DocumentPath, object] = {path: value}
        if isinstance(value, list):
            named = {(*path, place): text for place, text in enumerate(value)}
        for place, text in named.items():
            wrong = check(param, text, settings) if isinstance(text, str) else ""
            if wrong:
                self.report(place, wrong)

    def check_wires(self, step: str, manifest: Manifest, key: str, value: Any) -> None:
        path = ("steps", step, "with", key)
        socket = manifest.inputs.get(key)
        many = socket is not None and socket.many
        whole = isinstance(value, Selector)
        if many and not (isinstance(value, list) and value and _all_selectors(value)):
            self.report(path, f"input {key!r} takes a list of selectors.")
        elif socket is not None and not many and not whole and any(iter_selectors(value)):
            self.report(path, f"input {key!r} takes one selector, not a selector inside a value.")
        wanted = (socket or manifest.params[key]).kinds
        for selector in iter_selectors(value):
            given = self.kinds_given(path, selector)
            if given and (whole or many) and not sockets_fit(given, wanted):
                self.report(
                    path,
                    f"input {key!r} of {manifest.id} wants {' or '.join(wanted)}, "
                    f"but {selector} is {' or '.join(given)}.{_way_to_repeat(given, wanted)}",
                )

    # --- outputs and the whole ----------------------------------------------------------------

    def check_output(self, name: str) -> Selector | None:
        declared = self.written.outputs[name]
        short = isinstance(self.document.data["outputs"][name], str)
        path: DocumentPath = ("outputs", name) if short else ("outputs", name, "value")
        try:
            selector = parse_selectors(declared.value)
        except ValueError as error:
            self.report(path, f"{error}.")
            return None
        if not isinstance(selector, InputRef | StepRef):
            got = str(selector) if isinstance(selector, Selector) else repr(selector)
            self.report(path, f"an output wants a selector, got {got}.")
            return None
        kinds = self.kinds_given(path, selector)
        if declared.default is ... or not kinds:
            return selector
        try:
            return DefaultRef(selector, self.default_of(kinds, declared.default))
        except (TypeError, ValueError) as error:
            self.report(("outputs", name, "default"), f"the default is wrong: {error}.")
            return None

    def default_of(self, kinds: Sequence[str], written: Any) -> Any:
        """Make the default of an output; ``empty`` is the value without rows, where there is one.

        Raises:
            TypeError, ValueError: if it is of none of the kinds.
        """
        known = kinds_named(kinds, self.kinds)
        empty = next((kind.empty for kind in known if kind.empty is not None), None)
        if written is None:
            raise ValueError("null is what an output is without a default; leave it out")
        if written == "empty" and empty is not None:
            return empty()
        literal = [kind for kind in known if kind.literal]
        if not literal:
            hint = "write empty" if empty else "leave it out"
            raise ValueError(f"{' or '.join(kinds)} cannot be written out; {hint}")
        return parse_value(written, literal)

    def put_together(self, order: Sequence[Step]) -> tuple[tuple[Step, ...], Rewired]:
        """Put the steps of pipelines in the place of the steps that use them."""
        whole: list[Step] = []
        wired = Rewired()
        for written in [] if self.problems else order:
            step = rewire_step(written, wired.through)
            if not isinstance(step.manifest, PipelineManifest):
                whole.append(step)
                continue
            expanded = expand(step, step.manifest.pipeline)
            whole += expanded.steps
            wired.stands_for.update(expanded.outputs)
            if len(whole) > MOST_STEPS:
                message = f"the pipeline has more than {MOST_STEPS} steps, with those that it uses."
                self.report(("steps", step.id), message)
                break
        return tuple(whole), wired

    def find_deprecated(self, blocks: Mapping[str, Manifest | None]) -> Iterator[Problem]:
        for name, manifest in blocks.items():
            if manifest is not None and manifest.deprecated:
                message = f"{manifest.id} is deprecated: {manifest.deprecated}"
                yield self.document.problem(("steps", name, "use"), message)

    def find_unused(self, blocks: Mapping[str, Manifest | None]) -> Iterator[Problem]:
        wired = [parse_selectors(one.value) for one in self.written.outputs.values()]
        for name in blocks:
            wired += [self.given[name], self.loops[name], self.values_of_when(name)]
        used = {ref.step for ref in iter_refs(wired) if isinstance(ref, StepRef)}
        for name, manifest in blocks.items():
            if name not in used and manifest is not None and manifest.file_access != "write":
                message = "nothing uses the outputs of this step; remove it or name an output."
                yield self.document.problem(("steps", name), message)


def _all_selectors(value: Sequence[Any]) -> bool:
    return all(isinstance(entry, Selector) for entry in value)


def _way_to_repeat(given: Sequence[str], wanted: Sequence[str]) -> str:
    """What to do about a list where one of its elements is wanted."""
    elements = tuple(kind for kind in map(kind_of_element, given) if kind)
    fits = bool(elements) and sockets_fit(elements, tuple(wanted))
    return " Repeat the step with 'for_each', and wire $each." if fits else ""
