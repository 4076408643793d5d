"""A model under the name of its family, whatever it calls itself.

Embeddings carry the spec of the model that made them, and that is how they find back to it. A
model of a plugin that leaves out its family would answer for another's of the same name. So one
that does is wrapped: its spec and its embeddings name the family outside, and inside it sees them
as it made them. Whoever writes the family into `ExecutorSpec` needs no wrapping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sam2_blocks.executors import Loaded
from sam2_blocks.values import AutomaticMasks, Embedding, ExecutorSpec, Image, MaskPrediction


def qualify(model: Loaded, family: str) -> Loaded:
    """Return a model whose spec names this family; the same one if it does already."""
    if model.spec.family == family:
        return model
    abilities = {name for name in dir(model) if not name.startswith("_")}
    offered = {name: getattr(_Qualified, f"_{name}") for name in abilities & _TAKE_EMBEDDINGS}
    offered |= {name: _same(name) for name in abilities - _TAKE_EMBEDDINGS - {"spec"}}
    made: Loaded = type("Qualified", (_Qualified,), offered)(model, family)
    return made


_TAKE_EMBEDDINGS = {"embed", "segment", "propose_masks", "find"}


class _Qualified:
    """The methods that give or take embeddings, offered under their own names where there are."""

    def __init__(self, model: Any, family: str) -> None:
        self._model = model
        self._inside: ExecutorSpec = model.spec
        self.spec = model.spec._replace(family=family)

    def _embed(self, images: Sequence[Image]) -> list[Embedding]:
        return [self._outward(embedding) for embedding in self._model.embed(images)]

    def _segment(
        self, items: Sequence[tuple[Embedding, Any]], **options: Any
    ) -> list[MaskPrediction]:
        inward = [(self._inward(embedding), prompts) for embedding, prompts in items]
        made: list[MaskPrediction] = self._model.segment(inward, **options)
        return made

    def _propose_masks(
        self, embedding: Embedding, *arguments: Any, **options: Any
    ) -> AutomaticMasks:
        made: AutomaticMasks = self._model.propose_masks(
            self._inward(embedding), *arguments, **options
        )
        return made

    def _find(self, key: str) -> Embedding | None:
        found = self._model.find(key)
        return None if found is None else self._outward(found)

    def _outward(self, embedding: Embedding) -> Embedding:
        return _with_spec(embedding, self.spec)

    def _inward(self, embedding: Embedding) -> Embedding:
        return _with_spec(embedding, self._inside) if embedding.spec == self.spec else embedding


def _with_spec(embedding: Embedding, spec: ExecutorSpec) -> Embedding:
    return replace(embedding, spec=spec)


def _same(name: str) -> property:
    """An attribute of the model as it is."""
    return property(lambda self: getattr(self._model, name))
