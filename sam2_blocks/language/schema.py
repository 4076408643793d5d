"""JSON Schemas for editors, made from the manifests: one for manifests, one for pipelines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sam2_blocks.language.manifest import Input, Manifest
from sam2_blocks.language.selectors import SELECTOR_PATTERN
from sam2_blocks.language.written import PipelineDocument

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SELECTOR = {"type": "string", "pattern": SELECTOR_PATTERN}
FLOW: dict[str, Any] = {
    "when": {"$ref": "#/$defs/WhenDeclaration"},
    "for_each": {**SELECTOR, "description": "A list; the step runs for $each of its elements."},
    "on_error": {
        "enum": ["fail", "drop"],
        "description": "Whether an element that fails fails the item, or is dropped.",
    },
}
"""What any step may say beside its block."""
USES = {"type": "string", "description": "A pipeline as a step, from the folder of this file."}


def manifest_schema() -> dict[str, Any]:
    """JSON Schema of a block manifest."""
    schema = Manifest.model_json_schema(by_alias=True)
    return {"$schema": DIALECT, "title": "sam2_blocks manifest", **_without_title(schema)}


def pipeline_schema(manifests: Iterable[Manifest]) -> dict[str, Any]:
    """JSON Schema of a pipeline; which block a step uses decides what it may say.

    Blocks of other packs are not known here, and may say anything.
    """
    known = sorted(manifests, key=lambda manifest: manifest.id)
    ids = [manifest.id for manifest in known]
    schema = PipelineDocument.model_json_schema(by_alias=True)
    step = schema["$defs"]["StepDeclaration"]
    step["properties"]["use"] = _use(ids)
    step["allOf"] = [_branch(manifest) for manifest in known]
    step["properties"] |= {"uses": USES, **FLOW}
    step["oneOf"] = [{"required": ["use"]}, {"required": ["uses"]}]
    output = schema["$defs"]["OutputDeclaration"]
    output["properties"]["value"] = SELECTOR
    schema["$defs"]["OutputDeclaration"] = {"anyOf": [SELECTOR, output]}
    schema["$defs"]["WhenDeclaration"]["properties"]["value"] = SELECTOR
    return {"$schema": DIALECT, "title": "sam2_blocks pipeline", **_without_title(schema)}


def _use(ids: list[str]) -> dict[str, Any]:
    """The name of a block: one of ours if it is called like ours, so that a wrong one is named."""
    spaces = sorted({name.partition("/")[0] for name in ids})
    ours = {"pattern": f"^({'|'.join(map(re.escape, spaces))})/"}
    return {
        "type": "string",
        "description": "The block, such as sam2/segment@v1.",
        "anyOf": [{"enum": ids}, {}],  # for an editor to offer
        "if": ours,
        "then": {"enum": ids},
    }


def _branch(manifest: Manifest) -> dict[str, Any]:
    """What a step may say if it uses this block."""
    schema = step_schema(manifest)
    use = schema["properties"].pop("use")
    schema["properties"] = {"with": schema["properties"]["with"]}
    del schema["additionalProperties"], schema["type"]  # as of every step
    return {"if": {"properties": {"use": use}, "required": ["use"]}, "then": schema}


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
        "properties": {"use": {"const": manifest.id}, "with": given, **FLOW},
        "required": ["use", "with"] if required or groups else ["use"],
        "additionalProperties": False,
    }


def _input(socket: Input) -> dict[str, Any]:
    """A selector; or a value written out, which the checker judges by the kind."""
    text = f"{socket.description} Kind: {' or '.join(socket.kinds)}.".strip()
    if socket.many:
        return {"description": text, "type": "array", "items": SELECTOR, "minItems": 1}
    if "string" in socket.kinds:
        return {"description": text}
    return {"description": text, "anyOf": [SELECTOR, {"not": {"type": "string"}}]}


def _group(word: str, names: list[str]) -> dict[str, Any]:
    return {word: [{"required": [name]} for name in names]}


def _without_title(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "title"}
