"""What kinds of values are on the wires of a document that is being checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sam2_blocks.errors import did_you_mean
from sam2_blocks.kinds import ANY, LIST_OF, kind_of_element
from sam2_blocks.language.documents import DocumentPath
from sam2_blocks.language.manifest import Manifest, Output
from sam2_blocks.language.pipeline import EACH
from sam2_blocks.language.selectors import (
    EachRef,
    IndexRef,
    InputRef,
    Selector,
    StepRef,
    iter_selectors,
)
from sam2_blocks.language.written import PipelineDocument

Kinds = tuple[str, ...]


class Wiring:
    """Kinds of inputs, outputs and elements.

    Args:
        written: the document.
        blocks: what each step uses; None where that is wrong.
        given: what each step is given, with its selectors parsed.
        loops: what each step is repeated over.
        report: notes a problem.
    """

    def __init__(
        self,
        written: PipelineDocument,
        blocks: Mapping[str, Manifest | None],
        given: Mapping[str, Mapping[str, Any]],
        loops: Mapping[str, EachRef | None],
        report: Callable[[DocumentPath, str], None],
    ) -> None:
        self._written = written
        self._blocks = blocks
        self._given = given
        self._loops = loops
        self._report = report
        self._made: dict[StepRef, Kinds] = {}

    def find_kinds(self, order: Iterable[str]) -> None:
        """Find the kinds of all outputs, step after step, so that each knows what it is given."""
        for name in order:
            manifest, loop = self._blocks[name], self._loops[name]
            if manifest is None:
                continue
            before = LIST_OF if loop else ""
            for output, declared in manifest.outputs.items():
                kinds = self._kinds_of_output(name, declared)
                self._made[StepRef(name, output)] = tuple(f"{before}{kind}" for kind in kinds)
            if loop is not None:
                self._made.setdefault(StepRef(name, EACH), self.kinds_of(loop.of))

    def output_kinds(self, step: str) -> dict[str, Kinds]:
        """Kinds of a step's outputs by name."""
        manifest = self._blocks[step]
        names = [*(manifest.outputs if manifest else ()), *([EACH] if self._loops[step] else [])]
        return {name: self._made[StepRef(step, name)] for name in names}

    def kinds_of(self, selector: Any) -> Kinds:
        """Return the kinds of what a selector stands for; none if it stands for nothing."""
        if isinstance(selector, InputRef):
            declared = self._written.inputs.get(selector.name)
            return () if declared is None else declared.kinds
        if isinstance(selector, EachRef):
            return _elements(self.kinds_of(selector.of))
        if isinstance(selector, IndexRef):
            return ("integer",)
        return self._made.get(selector, ())

    def kinds_given(self, path: DocumentPath, selector: Selector) -> Kinds:
        """Return the kinds of what a selector stands for; report a selector of nothing.

        Args:
            path: where the selector is.
            selector: of the document.

        Returns:
            Names of kinds; none if it stands for nothing.
        """
        if isinstance(selector, InputRef):
            if selector.name and selector.name not in self._written.inputs:
                hint = did_you_mean(selector.name, self._written.inputs)
                self._report(path, f"the pipeline has no input {selector.name!r}.{hint}")
        elif isinstance(selector, StepRef):
            self._check_output(path, selector)
        elif path[2:3] == ("when",):
            message = f"'when' is asked before the elements come; {selector} is not there yet."
            self._report(path, message)
            return ()
        return self.kinds_of(selector)

    def check_loop(self, path: DocumentPath, loop: EachRef) -> None:
        """Report a ``for_each`` over something that is no list.

        Args:
            path: where it is.
            loop: the element, with the selector of the list.
        """
        kinds = self.kinds_given(path, loop.of)
        if kinds and not _elements(kinds):
            self._report(path, f"'for_each' wants a list, but {loop.of} is {' or '.join(kinds)}.")

    def _check_output(self, path: DocumentPath, selector: StepRef) -> None:
        if selector.step not in self._written.steps:
            hint = did_you_mean(selector.step, self._written.steps)
            self._report(path, f"there is no step {selector.step!r}.{hint}")
            return
        manifest = self._blocks[selector.step]
        if manifest is None or selector in self._made:  # the unknown block is reported at its step
            return
        hint = did_you_mean(selector.output, manifest.outputs)
        self._report(path, f"{manifest.id} has no output {selector.output!r}.{hint}")

    def _kinds_of_output(self, step: str, declared: Output) -> Kinds:
        """One that is the same as an input has the kinds of what is wired there, or in it."""
        wired = self._given[step].get(declared.same_as)
        given = [kind for one in iter_selectors(wired) for kind in self.kinds_of(one)]
        if ANY in declared.kinds and given:
            return tuple(dict.fromkeys(given))
        for found in (given, _elements(given)):
            if kinds := tuple(kind for kind in declared.kinds if kind in found):
                return kinds
        return declared.kinds


def _elements(kinds: Sequence[str]) -> Kinds:
    return tuple(element for element in map(kind_of_element, kinds) if element)
