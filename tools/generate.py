"""Files of this repository that are made from the code: ``python -m tools.generate``.

The schemas, the block reference and the README's table of blocks; a test compares them with it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.files.atomic import write_text
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
        schemas / "pipeline.schema.json": _json(pipeline_schema(manifests)),
        root / "manifests" / "README.md": "\n\n".join([block_table(manifests), *pages]) + "\n",
        root / "README.md": TABLE.sub(rf"\g<1>{block_overview(manifests)}\g<2>", readme),
    }


def _json(schema: dict[str, object]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in generated_files().items():
        write_text(path, text)
