"""``export/youtube_vis@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import supervision as sv

from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import UsageError
from sam2_blocks.formats.youtube_vis import YoutubeVisWriter
from sam2_blocks.values import Image


class ExportYoutubeVisItem(Protocol):
    """One frame; see the manifest."""

    image: Image
    predictions: sv.Detections
    path: str


class ExportYoutubeVis:
    """Collect the tracks of all videos and write each file once, when the run ends."""

    def __init__(self, resources: Resources) -> None:
        self._outputs = resources.files
        self._files: dict[Path, YoutubeVisWriter] = {}

    def run(self, items: Sequence[ExportYoutubeVisItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._add_or_error(item) for item in items]

    def finish(self) -> None:
        """Write the files; also after an interruption, with the frames done until then."""
        with ExitStack() as stack:  # each file gets its turn, whatever becomes of another one
            for file in self._files.values():
                stack.callback(file.finish)
            for path in self._outputs.claim_left(self):  # no frame of this run was for them
                stack.callback(self._open(path).finish)
        self._files.clear()

    def _add_or_error(self, item: ExportYoutubeVisItem) -> Mapping[str, Any] | Exception:
        try:
            path = self._outputs.claim(item.path, self)
            count = self._open(path).add(item.image, item.predictions)
        except (OSError, ValueError, UsageError) as error:
            return error
        return {"count": count}

    def _open(self, path: Path) -> YoutubeVisWriter:
        if path not in self._files:
            kept = self._outputs.kept_in(path)
            self._files[path] = YoutubeVisWriter(path, kept=kept, order=self._outputs.order)
        return self._files[path]
