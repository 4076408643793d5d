"""``export/video@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import UsageError
from sam2_blocks.files.atomic import unfinished_path
from sam2_blocks.formats.video import VideoFile
from sam2_blocks.values import Image


class ExportVideoItem(Protocol):
    """One frame; see the manifest."""

    image: Image
    path: str
    fps: float | None
    codec: str | None


class ExportVideo:
    """Append frames to videos; each is put in its place when the run ends."""

    def __init__(self, resources: Resources) -> None:
        self._outputs = resources.files
        self._files: dict[Path, VideoFile] = {}
        self._of: dict[Path, str] = {}

    def run(self, items: Sequence[ExportVideoItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._add_or_error(item) for item in items]

    def finish(self) -> None:
        """Finish the videos; also after an interruption, with the frames done until then."""
        with ExitStack() as stack:  # each file gets its turn, whatever becomes of another one
            for path, file in self._files.items():
                stack.callback(_finish, path, file)
        self._files.clear()

    def _add_or_error(self, item: ExportVideoItem) -> Mapping[str, Any] | Exception:
        try:
            path = self._outputs.claim(_path_of(item), self)
            self._check_video(path, item)
            self._open(path, item).add(item.image.pixels, _time_of(item))
        except (OSError, ValueError, UsageError) as error:  # PyAV's errors are of these
            return error
        return {"path": str(path)}

    def _check_video(self, path: Path, item: ExportVideoItem) -> None:
        """Refuse a second video where each has a file of its own, and both have one name."""
        if item.image.video is None or "{video}" not in item.path:
            return
        video = item.image.video.video_id
        if (first := self._of.setdefault(path, video)) != video:
            raise ValueError(
                f"{path} is that of {first!r}, and {video!r} would be mixed with it; run them one "
                "by one, each with an --out of its own, or name them otherwise"
            )

    def _open(self, path: Path, item: ExportVideoItem) -> VideoFile:
        if path not in self._files:
            if path.is_dir():
                raise ValueError(f"{path} is a folder, of results perhaps; choose another 'path'")
            path.parent.mkdir(parents=True, exist_ok=True)
            video = item.image.video
            self._files[path] = VideoFile(
                unfinished_path(path),
                fps=item.fps or (video.fps if video else None),
                codec=item.codec,
                ending=path.suffix,
            )
        return self._files[path]


def _time_of(item: ExportVideoItem) -> float | None:
    """When the frame is shown in its video, unless frames are to follow at a rate of their own."""
    return None if item.fps or item.image.video is None else item.image.video.timestamp_s


def _path_of(item: ExportVideoItem) -> str:
    name = Path(item.image.video.video_id).stem if item.image.video else "frames"
    return item.path.replace("{video}", name or "frames")


def _finish(path: Path, file: VideoFile) -> None:
    if file.close():
        unfinished_path(path).replace(path)
