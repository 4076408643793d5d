"""A checked pipeline as a picture and as text: Mermaid, SVG, and the kinds along every wire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from sam2_blocks.language.flow import condition_values
from sam2_blocks.language.pipeline import Pipeline, Step
from sam2_blocks.language.selectors import (
    DefaultRef,
    EachRef,
    InputRef,
    iter_refs,
    iter_selectors,
)

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 220, 58, 70, 22, 20
"""Sizes in the SVG, pixels."""

COLOURS = {"input": "#e8f0fe", "step": "#ffffff", "output": "#e6f4ea"}


TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0L8 4L0 8z" fill="#5f6368"/></marker></defs>'
)


@dataclass(frozen=True)
class Node:
    """An input, a step or an output.

    Attributes:
        id: unique in the graph.
        form: ``input``, ``step`` or ``output``.
        lines: what is written in it.
    """

    id: str
    form: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Edge:
    """A wire from one node to another; dotted if a condition alone asks for it."""

    start: str
    end: str
    dotted: bool = False


def explain(pipeline: Pipeline) -> Iterator[str]:
    """Say what is wired where, of which kinds, a line a wire."""
    for step in pipeline.steps:
        how = [f" when {condition}" for condition in step.when]
        if step.for_each is not None:
            how.insert(0, f" for each of {step.for_each.of}")
        yield f"{step.id}: {step.manifest.id}{''.join(how)}"
        for name, value in step.values.items():
            for selector in iter_selectors(value):
                told = _told(selector)
                yield f"  {name} ← {told}: {' or '.join(pipeline.kinds_of(selector))}"
        for name, kinds in step.output_kinds.items():
            yield f"  → {name}: {' or '.join(kinds)}"
    for name, selector in pipeline.outputs.items():
        absent = ", absent where skipped" if pipeline.may_lack(name) else ""
        given = " or ".join(pipeline.kinds_of(selector))
        yield f"output {name} ← {_told(selector)}: {given}{absent}"


def mermaid(pipeline: Pipeline) -> str:
    """Draw the pipeline as a Mermaid flowchart."""
    nodes, edges = _graph(pipeline)
    names = {node.id: f"n{index}" for index, node in enumerate(nodes)}
    shapes = {"input": ('(["', '"])'), "step": ('["', '"]'), "output": ('[/"', '"/]')}
    lines = ["flowchart LR"]
    for node in nodes:
        before, after = shapes[node.form]
        text = "<br>".join(_quoted(line) for line in node.lines)
        lines.append(f"  {names[node.id]}{before}{text}{after}")
    for edge in edges:
        arrow = "-.->" if edge.dotted else "-->"
        lines.append(f"  {names[edge.start]} {arrow} {names[edge.end]}")
    return "\n".join(lines) + "\n"


def svg(pipeline: Pipeline) -> str:
    """Draw the pipeline as SVG, columns from left to right, each node after all that it needs."""
    nodes, edges = _graph(pipeline)
    places = _places(nodes, edges)
    width = max(x for x, _ in places.values()) + WIDTH + MARGIN
    height = max(y for _, y in places.values()) + HEIGHT + MARGIN
    drawn = [_curve(edge, places) for edge in edges]
    drawn += [_box(node, *places[node.id]) for node in nodes]
    title = escape(pipeline.title or pipeline.source)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
            f"<title>{title}</title>",
            TIP,
            f'<rect width="{width}" height="{height}" fill="#fafafa"/>',
            *drawn,
            "</svg>",
            "",
        ]
    )


def _graph(pipeline: Pipeline) -> tuple[list[Node], list[Edge]]:
    nodes = [
        Node(f"input {name}", "input", (name, " or ".join(given.kinds)))
        for name, given in pipeline.inputs.items()
    ]
    edges: dict[Edge, None] = {}
    for step in pipeline.steps:
        nodes.append(Node(f"step {step.id}", "step", tuple(_lines(step))))
        solid = set(_starts([*step.values.values(), step.for_each]))
        edges.update(dict.fromkeys(Edge(start, f"step {step.id}") for start in solid))
        asked = set(_starts(condition_values(step.when))) - solid
        edges.update(dict.fromkeys(Edge(one, f"step {step.id}", dotted=True) for one in asked))
    for name, selector in pipeline.outputs.items():
        lines = (name, *(["or its default"] if isinstance(selector, DefaultRef) else []))
        nodes.append(Node(f"output {name}", "output", lines))
        edges.update(dict.fromkeys(Edge(one, f"output {name}") for one in _starts([selector])))
    order = {node.id: index for index, node in enumerate(nodes)}
    return nodes, sorted(edges, key=lambda edge: (order[edge.end], order[edge.start]))


def _lines(step: Step) -> Iterator[str]:
    yield step.id
    yield step.manifest.id
    if step.for_each is not None:
        yield f"for each of {step.for_each.of}"
    for condition in step.when:
        yield f"when {condition}"


def _starts(wired: list[Any]) -> Iterator[str]:
    for ref in iter_refs(wired):
        yield f"input {ref.name}" if isinstance(ref, InputRef) else f"step {ref.step}"


def _told(selector: Any) -> str:
    if isinstance(selector, DefaultRef):
        return f"{selector.of} or its default"
    if isinstance(selector, EachRef):
        return f"$each of {selector.of}"
    return str(selector)


def _quoted(text: str) -> str:
    """Text inside a Mermaid label; what it would take for markup is written as an entity."""
    return "".join(c if c.isalnum() or c in " $._-/@,():" else f"#{ord(c)};" for c in text)


def _places(nodes: list[Node], edges: list[Edge]) -> dict[str, tuple[int, int]]:
    """Top left corners: a node's column is the longest way to it; nodes are in that order."""
    column = dict.fromkeys((node.id for node in nodes), 0)
    for edge in edges:
        column[edge.end] = max(column[edge.end], column[edge.start] + 1)
    last = max(column.values())
    places: dict[str, tuple[int, int]] = {}
    used: dict[int, int] = {}
    for node in nodes:
        at = last if node.form == "output" else column[node.id]
        row = used.get(at, 0)
        used[at] = row + 1
        places[node.id] = (MARGIN + at * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
    return places


def _curve(edge: Edge, places: dict[str, tuple[int, int]]) -> str:
    (x0, y0), (x1, y1) = places[edge.start], places[edge.end]
    x0, y0, y1 = x0 + WIDTH, y0 + HEIGHT // 2, y1 + HEIGHT // 2
    bend = (x1 - x0) // 2
    dash = ' stroke-dasharray="4 3"' if edge.dotted else ""
    return (
        f'<path d="M{x0} {y0}C{x0 + bend} {y0} {x1 - bend} {y1} {x1} {y1}" fill="none" '
        f'stroke="#5f6368"{dash} marker-end="url(#tip)"/>'
    )


def _box(node: Node, x: int, y: int) -> str:
    round_ = HEIGHT // 2 if node.form == "input" else 6
    texts = [
        f'<text x="{x + WIDTH // 2}" y="{y + 18 + 14 * row}" text-anchor="middle" '
        f'font-weight="{400 if row else 700}">{escape(_short(line))}</text>'
        for row, line in enumerate(node.lines[:3])
    ]
    tip = escape("\n".join(node.lines))
    return (
        f'<g><title>{tip}</title><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" '
        f'rx="{round_}" fill="{COLOURS[node.form]}" stroke="#5f6368"/>{"".join(texts)}</g>'
    )


def _short(line: str) -> str:
    return line if len(line) <= 34 else f"{line[:33]}…"
