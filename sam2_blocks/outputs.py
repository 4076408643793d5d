"""Results of a run → files in the output folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from sam2_blocks.files import write_text
from sam2_blocks.hookspecs import Exporter
from sam2_blocks.pipeline import Pipeline
from sam2_blocks.plugins import Plugins
from sam2_blocks.runner import ErrorRecord, ItemResult

ERRORS_FILE = "errors.json"


class OutputFolder:
    """Writes every output of every item; each file is whole or not there.

    Args:
        folder: where the files go; made when the first is written.
        pipeline: whose outputs are written.
        plugins: for the exporters.
        nested: give each item a folder of its own, named after its id.
    """

    def __init__(self, folder: Path, pipeline: Pipeline, plugins: Plugins, *, nested: bool) -> None:
        self.folder = folder
        self._nested = nested
        self._exporters = {
            name: _find_exporter(pipeline.kinds_of(selector), plugins)
            for name, selector in pipeline.outputs.items()
        }
        (folder / ERRORS_FILE).unlink(missing_ok=True)

    @property
    def skipped(self) -> list[str]:
        """Outputs whose kind has no file format, such as embeddings."""
        return [name for name, exporter in self._exporters.items() if exporter is None]

    def write(self, result: ItemResult) -> list[Path]:
        """Write the outputs of one item.

        Returns:
            The files written.

        Raises:
            OSError: if a file cannot be written; it is not there then.
        """
        target = self.folder / _below(result.id) if self._nested else self.folder
        written = []
        for name, value in result.outputs.items():
            exporter = self._exporters[name]
            if exporter is not None:
                written.append(exporter(value, target / name))
        return written

    def write_errors(self, errors: Sequence[ErrorRecord]) -> Path:
        """Write the error records of the run."""
        rows = [asdict(error) for error in errors]
        return write_text(self.folder / ERRORS_FILE, json.dumps(rows, indent=1) + "\n")


def _find_exporter(kinds: Sequence[str], plugins: Plugins) -> Exporter | None:
    return next((plugins.exporters[kind] for kind in kinds if kind in plugins.exporters), None)


def _below(item_id: str) -> PurePosixPath:
    """The item's id as a relative path that cannot leave the output folder."""
    parts = [part for part in PurePosixPath(item_id).parts if part not in ("/", "..", ".")]
    return PurePosixPath(*parts)
