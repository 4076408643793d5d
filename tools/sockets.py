"""The sockets of every block, frozen: ``python -m tools.sockets`` writes ``tests/sockets.json``.

A published block keeps its inputs, outputs and parameters. After a release a change that
`find_breaks` names is a new version of the block, ``name@v2``; until the first one, and for what is
only added, the snapshot is updated in the commit that changes the block.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.files.atomic import write_text
from sam2_blocks.language.manifest import Manifest

SNAPSHOT = Path(__file__).resolve().parent.parent / "tests" / "sockets.json"
REQUIRED = "required"


def sockets_of(manifest: Manifest) -> dict[str, Any]:
    """What a pipeline may rely on: kinds, parameters with their bounds and defaults, rules."""
    return {
        "inputs": {
            name: {
                "kinds": sorted(socket.kinds),
                REQUIRED: socket.required,
                **({"many": True} if socket.many else {}),
            }
            for name, socket in manifest.inputs.items()
        },
        "params": {
            name: {key: value for key, value in _schema(param).items() if key != "description"}
            for name, param in manifest.params.items()
        },
        "outputs": {
            name: {"kinds": sorted(socket.kinds), "same_as": socket.same_as}
            for name, socket in manifest.outputs.items()
        },
        "require": manifest.require.model_dump(),
        "file_access": manifest.file_access,
    }


def _schema(param: Any) -> dict[str, Any]:
    return {**param.json_schema, REQUIRED: param.required, "unit": param.unit}


def all_sockets(manifests: Iterable[Manifest]) -> dict[str, Any]:
    """The snapshot: the sockets of every block, by id."""
    return {manifest.id: sockets_of(manifest) for manifest in sorted(manifests, key=lambda m: m.id)}


def find_breaks(frozen: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Say what a pipeline written for the frozen blocks could stumble over."""
    for block, old in frozen.items():
        if block not in now:
            yield f"{block}: the block is gone"
            continue
        new = now[block]
        for part in ("inputs", "params", "outputs"):
            yield from _changed(f"{block}: {part}", old[part], new[part])
        yield from (
            f"{block}: params.{name} is new and has no default"
            for name in set(new["params"]) - set(old["params"])
            if new["params"][name][REQUIRED]
        )
        yield from (
            f"{block}: inputs.{name} is new and required"
            for name in set(new["inputs"]) - set(old["inputs"])
            if new["inputs"][name][REQUIRED]
        )
        for key in ("require", "file_access"):
            if new[key] != old[key]:
                yield f"{block}: {key} was {old[key]}, is {new[key]}"


def _changed(place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name, socket in old.items():
        if name not in new:
            yield f"{place}.{name} is gone"
        elif new[name] != socket:
            yield f"{place}.{name} was {socket}, is {new[name]}"


def render(sockets: Mapping[str, Any]) -> str:
    """The snapshot as text."""
    return json.dumps(sockets, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_text(
        SNAPSHOT, render(all_sockets(load_plugins(strict=True, points=[]).manifests.values()))
    )
