"""YouTube-VIS: a track is one annotation, with a mask a frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import supervision as sv

from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import rle_area, rle_to_box_xyxy, rle_to_coco
from sam2_blocks.values import Hw, Image, Rle


@dataclass
class _Video:
    """One video: names of its frames in order, and of each track its masks by frame."""

    image_hw: Hw
    frames: list[str] = field(default_factory=list)
    tracks: dict[int, dict[int, Rle]] = field(default_factory=dict)
    classes: dict[int, str] = field(default_factory=dict)


class YoutubeVis:
    """Gathers tracks, frame by frame.

    Source: the annotations of YouTube-VIS 2019, as read by detectron2 and mmdetection.
    """

    def __init__(self) -> None:
        self._videos: dict[str, _Video] = {}

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
        rles = to_rles(found, image.hw)
        video = self._videos.setdefault(image.video.video_id, _Video(image.hw))
        if video.image_hw != image.hw:
            raise ValueError(f"frame {image.id!r} has another size than those before it")
        names = found.data.get("class_name", ["object"] * len(found))
        video.frames.append(image.id)
        seen = [row for row, rle in enumerate(rles) if rle_area(rle)]
        for row in seen:
            assert found.tracker_id is not None
            key = int(found.tracker_id[row])
            video.tracks.setdefault(key, {})[len(video.frames) - 1] = rles[row]
            video.classes.setdefault(key, str(names[row]))
        return len(seen)

    def document(self) -> dict[str, Any]:
        """Make the content of the file; videos, tracks and classes are numbered from 1."""
        names = sorted({name for video in self._videos.values() for name in video.classes.values()})
        categories = {name: number for number, name in enumerate(names, 1)}
        videos: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (name, video) in enumerate(self._videos.items(), 1):
            height, width = video.image_hw
            size = {"width": width, "height": height, "length": len(video.frames)}
            videos.append({"id": number, "name": name, "file_names": video.frames, **size})
            for key, masks in video.tracks.items():
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "video_id": number,
                        "track_id": key,
                        "category_id": categories[video.classes[key]],
                        "iscrowd": 0,
                        **_columns([masks.get(frame) for frame in range(len(video.frames))]),
                        **size,
                    }
                )
        rows = [{"id": number, "name": name} for name, number in categories.items()]
        return {"videos": videos, "annotations": annotations, "categories": rows}


def _columns(masks: list[Rle | None]) -> dict[str, list[Any]]:
    """Masks, boxes and areas of a track; None on frames where it is not seen."""
    return {
        "segmentations": [mask and rle_to_coco(mask) for mask in masks],
        "bboxes": [mask and _box_xywh(mask) for mask in masks],
        "areas": [mask and rle_area(mask) for mask in masks],
    }


def _box_xywh(mask: Rle) -> list[int]:
    x0, y0, x1, y1 = rle_to_box_xyxy(mask).tolist()
    return [x0, y0, x1 - x0 + 1, y1 - y0 + 1]
