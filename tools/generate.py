"""Files of this repository that are made from the code: ``python -m tools.generate``.

The schemas, the block reference and the README's table of blocks; a test compares them with it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.files.atomic import write_text
from sam2_blocks.language.documents import parse_yaml
from sam2_blocks.language.manifest import iter_yaml_files, load_manifest, manifest_dir
from sam2_blocks.language.read_before import FILE_NAME, ReadBefore, digest_of
from sam2_blocks.language.reference import block_overview, block_table, describe
from sam2_blocks.language.schema import manifest_schema, pipeline_schema

ROOT = Path(__file__).resolve().parent.parent
TABLE = re.compile(r"(<!-- blocks -->\n).*?(\n<!-- /blocks -->)", re.DOTALL)


def generated_files(root: Path = ROOT) -> dict[Path, str]:
    """The content every generated file should have, by path."""
    manifests = load_plugins(strict=True, points=[]).manifests.values()
    pages = [describe(manifest) for manifest in sorted(manifests, key=lambda m: m.id)]
    readme = (root / "README.md").read_text(encoding="utf-8")
    schemas = root / "sam2_blocks" / "schemas"
    return {
        schemas / "manifest.schema.json": _json(manifest_schema()),
        schemas / FILE_NAME: _compact(manifests_read(manifest_dir())),
        schemas / "pipeline.schema.json": _json(pipeline_schema(manifests)),
        root / "manifests" / "README.md": "\n\n".join([block_table(manifests), *pages]) + "\n",
        root / "README.md": TABLE.sub(rf"\g<1>{block_overview(manifests)}\g<2>", readme),
    }


def manifests_read(folder: Path) -> dict[str, ReadBefore]:
    """What the manifests of a folder say, by content; they are found good first."""
    kinds = load_plugins(strict=True, points=[]).kinds
    entries: dict[str, ReadBefore] = {}
    for file in iter_yaml_files(folder):
        text = file.read_text(encoding="utf-8")
        manifest = load_manifest(text, file.name, kinds)
        sockets = (*manifest.inputs.values(), *manifest.outputs.values())
        named = sorted({kind for socket in sockets for kind in socket.kinds})
        entries[digest_of(text)] = {"kinds": named, "manifest": parse_yaml(text, file.name).data}
    return entries


def _compact(entries: dict[str, ReadBefore]) -> str:
    """One line an entry, so that a change shows as one."""
    lines = (
        f"{json.dumps(key)}: {json.dumps(entry, ensure_ascii=False)}"
        for key, entry in entries.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _json(schema: dict[str, object]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in generated_files().items():
        write_text(path, text)
