"""The block reference, made from the manifests: Markdown for the docs and the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sam2_blocks.language.manifest import Example, Manifest, Param, Socket


def block_table(manifests: Iterable[Manifest]) -> str:
    """One row a block: id, what it does, inputs, outputs."""
    rows = ["| block | does | in | out |", "|---|---|---|---|"]
    for manifest in sorted(manifests, key=lambda manifest: manifest.id):
        inputs = ", ".join(f"`{name}`" for name in manifest.inputs)
        outputs = ", ".join(f"`{name}`" for name in manifest.outputs)
        summary = f"Deprecated. {manifest.summary}" if manifest.deprecated else manifest.summary
        rows.append(f"| `{manifest.id}` | {summary} | {inputs} | {outputs} |")
    return "\n".join(rows)


def block_overview(manifests: Iterable[Manifest]) -> str:
    """One row a namespace: its blocks that are not deprecated, by name and title."""
    rows: dict[str, list[str]] = {}
    for manifest in sorted(manifests, key=lambda manifest: manifest.id):
        namespace, _, name = manifest.id.partition("/")
        if not manifest.deprecated:
            rows.setdefault(namespace, []).append(f"`{name}` {manifest.title}")
    lines = [f"| `{namespace}/` | {' · '.join(blocks)} |" for namespace, blocks in rows.items()]
    return "\n".join(["| | blocks |", "|---|---|", *lines])


def describe(manifest: Manifest) -> str:
    """Everything about one block."""
    lines = [f"# {manifest.id}: {manifest.title}", "", manifest.summary, ""]
    if manifest.deprecated:
        lines += [f"**Deprecated:** {manifest.deprecated}", ""]
    for package in manifest.requires.values():
        lines += [f"It needs more packages: `pip install '{package}'`.", ""]
    lines += ["## Inputs", ""]
    for name, socket in manifest.inputs.items():
        need = ", required" if socket.required else ""
        lines.append(f"- `{name}` ({_kinds(socket)}{need}): {socket.description}")
    for group in manifest.require.exactly_one:
        lines.append(f"- exactly one of {', '.join(f'`{name}`' for name in group)}")
    for group in manifest.require.at_least_one:
        lines.append(f"- at least one of {', '.join(f'`{name}`' for name in group)}")
    if manifest.params:
        lines += ["", "## Parameters", ""]
    lines += [
        f"- `{name}` ({_limits(param)}): {_text(param)}" for name, param in manifest.params.items()
    ]
    lines += ["", "## Outputs", ""]
    for name, output in manifest.outputs.items():
        lines.append(f"- `{name}` ({_kinds(output)}): {output.description}")
    if manifest.examples:
        lines += ["", "## Examples", ""]
    lines += [line for example in manifest.examples for line in _example(manifest.id, example)]
    return "\n".join(lines).rstrip()


def _example(block: str, example: Example) -> list[str]:
    """A step as it is written in a pipeline."""
    values = [f"    {name}: {_written(value)}" for name, value in example.with_.items()]
    step = ["step:", f"  use: {block}", *(["  with:", *values] if values else [])]
    return [f"{example.title}:", "", "```yaml", *step, "```", ""]


def _written(value: object) -> str:
    """A value in YAML: a selector as it is, anything else as JSON."""
    if isinstance(value, str) and value.startswith("$"):
        return value
    return json.dumps(value, ensure_ascii=False)


def _kinds(socket: Socket) -> str:
    return " or ".join(f"`{kind}`" for kind in socket.kinds)


def _limits(param: Param) -> str:
    parts = ["one of " + ", ".join(map(str, param.enum)) if param.enum else param.type]
    bounds = (
        ("≥", param.minimum),
        ("≤", param.maximum),
        (">", param.exclusiveMinimum),
        ("<", param.exclusiveMaximum),
    )
    parts += [f"{sign} {bound:g}" for sign, bound in bounds if bound is not None]
    parts.append("required" if param.required else f"default {param.default}")
    return ", ".join(parts)


def _text(param: Param) -> str:
    return f"{param.description} Unit: {param.unit}." if param.unit else param.description
