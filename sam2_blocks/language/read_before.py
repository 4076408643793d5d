"""What the built-in manifests say, read when they were written: YAML takes many times as long.

Every start of everything reads all of them. An entry is found by the content of its file, so that
one who changes a manifest gets what it says now.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypedDict

FILE_NAME = "manifests.json"


class ReadBefore(TypedDict):
    """One manifest that was found good.

    Attributes:
        kinds: those that its sockets name; it is good where all of them are known.
        manifest: what it says.
    """

    kinds: list[str]
    manifest: dict[str, Any]


def read_before(text: str) -> ReadBefore | None:
    """Return what is known of a manifest of this text, if anything."""
    return _entries().get(digest_of(text))


def digest_of(text: str) -> str:
    """Name the content of a manifest."""
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _entries() -> dict[str, ReadBefore]:
    """Everything that `tools.generate` wrote."""
    path = Path(str(files("sam2_blocks"))) / "schemas" / FILE_NAME
    try:
        found: dict[str, ReadBefore] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # somebody's own build may be without: then all is read as YAML
        return {}
    return found
