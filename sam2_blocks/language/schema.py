"""JSON Schemas for editors, made from the manifests: one for manifests, one for pipelines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sam2_blocks.language.manifest import Input, Manifest
from sam2_blocks.language.pipeline import PipelineDocument
from sam2_blocks.language.selectors import SELECTOR_PATTERN

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SELECTOR = {"type": "string", "pattern": SELECTOR_PATTERN}


def manifest_schema() -> dict[str, Any]:
    """JSON Schema of a block manifest."""
    schema = Manifest.model_json_schema(by_alias=True)
    return {"$schema": DIALECT, "title": "sam2_blocks manifest", **_without_title(schema)}


def pipeline_schema(manifests: Iterable[Manifest]) -> dict[str, Any]:
    """JSON Schema of a pipeline, with one ``oneOf`` branch for each block."""
    schema = PipelineDocument.model_json_schema(by_alias=True)
    schema["$defs"]["StepDeclaration"] = {
        "oneOf": [step_schema(manifest) for manifest in sorted(manifests, key=lambda m: m.id)]
    }
    return {"$schema": DIALECT, "title": "sam2_blocks pipeline", **_without_title(schema)}


def step_schema(manifest: Manifest) -> dict[str, Any]:
    """JSON Schema of a step that uses one block."""
    values: dict[str, Any] = {name: _input(socket) for name, socket in manifest.inputs.items()}
    for name, param in manifest.params.items():
        literal = param.json_schema
        outer = {key: literal.pop(key) for key in ("description", "default") if key in literal}
        offered = [{"enum": param.suggestions}] if param.suggestions else []
        values[name] = {**outer, "anyOf": [*offered, literal, SELECTOR]}
    required = [name for name, socket in manifest.inputs.items() if socket.required]
    required += [name for name, param in manifest.params.items() if param.required]
    given: dict[str, Any] = {
        "type": "object",
        "properties": values,
        "required": required,
        "additionalProperties": False,
    }
    groups = [_group("oneOf", group) for group in manifest.require.exactly_one]
    groups += [_group("anyOf", group) for group in manifest.require.at_least_one]
    if groups:
        given["allOf"] = groups
    return {
        **({"deprecated": True} if manifest.deprecated else {}),
        "title": manifest.title,
        "description": manifest.summary,
        "type": "object",
        "properties": {"use": {"const": manifest.id}, "with": given},
        "required": ["use", "with"] if required or groups else ["use"],
        "additionalProperties": False,
    }


def _input(socket: Input) -> dict[str, Any]:
    """A selector; or a value written out, which the checker judges by the kind."""
    text = f"{socket.description} Kind: {' or '.join(socket.kinds)}.".strip()
    if "string" in socket.kinds:
        return {"description": text}
    return {"description": text, "anyOf": [SELECTOR, {"not": {"type": "string"}}]}


def _group(word: str, names: list[str]) -> dict[str, Any]:
    return {word: [{"required": [name]} for name in names]}


def _without_title(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "title"}
