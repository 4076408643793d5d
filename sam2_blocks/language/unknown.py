"""What to say of a block that is not there: another version, a near name, or who would bring it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

from sam2_blocks.errors import Problem, did_you_mean
from sam2_blocks.language.documents import Document

PACKS: Mapping[str, str] = {
    "onnx": "examples/plugin_onnx of this library's repository",
    "opencv": "examples/plugin of this library's repository",
    "rfdetr": "examples/plugin_rfdetr of this library's repository",
    "ultralytics": "examples/plugin_ultralytics of this library's repository, under AGPL-3.0",
}
"""Where the blocks of a namespace come from that are not ours."""

TYPO = 0.8
"""How much alike two ids of different namespaces are, if one is a typing error of the other."""


def unknown_block(use: str, known: Collection[str]) -> str:
    """Say what is wrong with the name of a block, and what to do.

    Args:
        use: the name, which is none of ``known``.
        known: ids of all blocks that are there.
    """
    name = use.partition("@")[0]
    versions = [block for block in known if block.partition("@")[0] == name]
    if versions:
        return f"there is no {use!r}; use {' or '.join(map(repr, sorted(versions)))}."
    space = name.partition("/")[0]
    relatives = [block for block in known if block.partition("/")[0] == space]
    if relatives:
        return f"unknown block {use!r}.{did_you_mean(use, relatives)}"
    if close := get_close_matches(use, known, n=1, cutoff=TYPO):
        return f"unknown block {use!r}. Did you mean {close[0]!r}?"
    if space in PACKS and "/" in name:
        return f"unknown block {use!r}. It would come from {PACKS[space]}; install it with pip."
    spaces = ", ".join(sorted({block.partition("/")[0] for block in known}))
    return (
        f"unknown block {use!r}. No plugin that is installed has blocks called {space!r}; install "
        f"the one that does, or use blocks of {spaces}."
    )


def unknown_blocks(document: Document, known: Collection[str]) -> Iterator[Problem]:
    """Find steps of a document that use blocks which are not there, whatever else is wrong."""
    data = document.data if isinstance(document.data, Mapping) else {}
    steps = data.get("steps")
    for name, step in steps.items() if isinstance(steps, Mapping) else ():
        use = step.get("use") if isinstance(step, Mapping) else None
        if isinstance(use, str) and use not in known:
            yield document.problem(("steps", name, "use"), unknown_block(use, known))
