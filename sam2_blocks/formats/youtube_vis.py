"""YouTube-VIS: a track is one annotation, with a mask a frame."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import supervision as sv

from sam2_blocks.errors import UsageError
from sam2_blocks.files.atomic import json_text, unfinished_path, write_text
from sam2_blocks.files.json_lines import JsonLines, read_json_lines
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import coco_to_rle, rle_area, rle_to_box_xyxy, rle_to_coco
from sam2_blocks.values import Image

Frame = Mapping[str, Any]
"""Name of its ``video``, ``size`` [H, W], and ``tracks``: id, class and COCO RLE of each."""


class YoutubeVis:
    """Gathers tracks, frame by frame.

    Source: the annotations of YouTube-VIS 2019, as read by detectron2 and mmdetection.

    Args:
        frames: that are known, by name.

    Attributes:
        frames: all so far, by name.
    """

    def __init__(self, frames: Mapping[str, Frame] | None = None) -> None:
        self.frames: dict[str, Frame] = dict(frames or {})
        self._sizes = {frame["video"]: frame["size"] for frame in self.frames.values()}

    def add(self, image: Image, found: sv.Detections) -> int:
        """Add one frame.

        Args:
            image: a frame of a video; frames come in order.
            found: detections with masks and ``tracker_id``; those without a pixel are left out.

        Returns:
            How many tracks are seen on it.

        Raises:
            ValueError: if the picture is no frame, has another size than those before it, or the
                detections have no ids.
        """
        if image.video is None:
            raise ValueError(f"picture {image.id!r} is no frame of a video")
        if found.tracker_id is None and len(found):
            raise ValueError("wants detections with tracker_id; make them with sam2/track")
        tracks = list(_tracks(image, found))
        size = list(image.hw)
        if self._sizes.setdefault(image.video.video_id, size) != size:
            raise ValueError(f"frame {image.id!r} has another size than those before it")
        self.frames[image.id] = {"video": image.video.video_id, "size": size, "tracks": tracks}
        return len(tracks)

    def document(self) -> dict[str, Any]:
        """Make the content of the file; videos, tracks and classes are numbered from 1."""
        names = {name for frame in self.frames.values() for _, name, _ in frame["tracks"]}
        categories = {name: number for number, name in enumerate(sorted(names), 1)}
        videos: dict[str, list[str]] = {}
        for name, frame in self.frames.items():
            videos.setdefault(frame["video"], []).append(name)
        listed: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (video, files) in enumerate(videos.items(), 1):
            height, width = self._sizes[video]
            size = {"width": width, "height": height, "length": len(files)}
            listed.append({"id": number, "name": video, "file_names": files, **size})
            for key, (class_name, masks) in self._tracks_of(files).items():
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "video_id": number,
                        "track_id": key,
                        "category_id": categories[class_name],
                        "iscrowd": 0,
                        **_columns([masks.get(frame) for frame in range(len(files))]),
                        **size,
                    }
                )
        rows = [{"id": number, "name": name} for name, number in categories.items()]
        return {"videos": listed, "annotations": annotations, "categories": rows}

    def _tracks_of(self, files: Iterable[str]) -> dict[int, tuple[str, dict[int, Any]]]:
        """Class and masks by frame of each track of one video."""
        tracks: dict[int, tuple[str, dict[int, Any]]] = {}
        for place, name in enumerate(files):
            for key, class_name, mask in self.frames[name]["tracks"]:
                tracks.setdefault(key, (class_name, {}))[1][place] = mask
        return tracks


class YoutubeVisWriter:
    """Writes the file whole, when `finish` is called.

    Until then a hidden file beside it has the frames, for a later run to go on with after a crash.

    Args:
        path: the file.
        kept: names of frames that an earlier run put there, and this one does not.
        order: places of frames by name; those without one come last, as they were added.

    Raises:
        OSError: if nothing can be written there.
        UsageError: if frames are to be kept, but it is no file of ours.
    """

    def __init__(
        self, path: Path, *, kept: Collection[str] = (), order: Mapping[str, int] | None = None
    ) -> None:
        self._path, self._part_path = path, unfinished_path(path)
        self._order = order or {}
        earlier = _read_frames(path) if kept and path.exists() else {}
        rows = read_json_lines(self._part_path) if kept else []
        earlier |= {row[0]: row[1] for row in rows if isinstance(row, list) and len(row) == 2}
        self._tracks = YoutubeVis({name: of for name, of in earlier.items() if name in kept})
        self._part = JsonLines(self._part_path, self._tracks.frames.items())

    def add(self, image: Image, found: sv.Detections) -> int:
        """Add one frame; see `YoutubeVis.add`."""
        count = self._tracks.add(image, found)
        self._part.append([image.id, self._tracks.frames[image.id]])
        return count

    def finish(self) -> None:
        """Write the file."""
        self._part.close()
        frames, last = self._tracks.frames, len(self._order)
        names = sorted(frames, key=lambda name: self._order.get(name, last))
        document = YoutubeVis({name: frames[name] for name in names}).document()
        write_text(self._path, json_text(document, indent=1) + "\n")
        self._part_path.unlink(missing_ok=True)


def _tracks(image: Image, found: sv.Detections) -> Iterable[tuple[int, str, Any]]:
    names = found.data.get("class_name", ["object"] * len(found))
    for row, rle in enumerate(to_rles(found, image.hw)):
        if rle_area(rle):
            assert found.tracker_id is not None
            yield int(found.tracker_id[row]), str(names[row]), rle_to_coco(rle)


def _columns(masks: list[Any]) -> dict[str, list[Any]]:
    """Masks, boxes and areas of a track; None on frames where it is not seen."""
    rles = [mask and coco_to_rle(mask) for mask in masks]
    return {
        "segmentations": masks,
        "bboxes": [rle and _box_xywh(rle) for rle in rles],
        "areas": [rle and rle_area(rle) for rle in rles],
    }


def _box_xywh(mask: Any) -> list[int]:
    x0, y0, x1, y1 = rle_to_box_xyxy(mask).tolist()
    return [x0, y0, x1 - x0 + 1, y1 - y0 + 1]


def _read_frames(path: Path) -> dict[str, Frame]:
    """Undo `YoutubeVis.document`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        names = {row["id"]: row["name"] for row in document["categories"]}
        videos = {video["id"]: video for video in document["videos"]}
        frames: dict[str, Frame] = {
            name: {"video": of["name"], "size": [of["height"], of["width"]], "tracks": []}
            for of in videos.values()
            for name in of["file_names"]
        }
        for row in document["annotations"]:
            files = videos[row["video_id"]]["file_names"]
            for name, mask in zip(files, row["segmentations"], strict=True):
                if mask:
                    track = [row["track_id"], names[row["category_id"]], mask]
                    frames[name]["tracks"].append(track)
        return frames
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot be continued: it is no YouTube-VIS file as this block writes it "
            f"({type(error).__name__}: {error}). Move it away, or choose another 'path'."
        ) from error
