"""The classes of a detector, as the configuration beside its weights names them. No torch."""

from __future__ import annotations

import json
from pathlib import Path

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.weights.hub import cached_revision
from sam2_blocks.executor.weights.names import HubName, read_name


def classes_of(model: str) -> tuple[str, ...]:
    """Return the classes that a model of the transformers library knows, without a network.

    Args:
        model: a folder that ``save_pretrained`` wrote, or a repository of the hub; see
            `sam2_blocks.executor.weights.names`.

    Returns:
        Names in the order of their numbers; none if nobody can tell before it is loaded.
    """
    try:
        named = read_name(model)
        folder = cached_revision(named) if isinstance(named, HubName) else named
        if folder is None:
            return ()
        written = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        names = {int(number): str(name) for number, name in written["id2label"].items()}
    except (ModelError, OSError, ValueError, TypeError, AttributeError, KeyError):
        return ()  # loading it says what is wrong
    return tuple(names[number] for number in sorted(names))
