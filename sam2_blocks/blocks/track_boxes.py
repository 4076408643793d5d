"""``track/boxes@v1``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import supervision as sv

from sam2_blocks.blocks.track import frame_of
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import MissingExtraError
from sam2_blocks.masks.merging import NO_TRACK, confidence_of
from sam2_blocks.values import Image, Int64Array

CLASSES = {"bytetrack": "ByteTrackTracker", "ocsort": "OCSORTTracker", "sort": "SORTTracker"}
FRAME_RATE = 30.0  # of the library's own unit for how long a track is kept, so that ours is frames


class TrackBoxesItem(Protocol):
    """One frame; see the manifest."""

    image: Image
    detections: sv.Detections
    tracker: Literal["bytetrack", "ocsort", "sort"]
    lost_after: int
    min_frames: int
    match_iou: float | None
    max_videos: int


@dataclass
class _Video:
    """The tracker of one video, and our ids by its own, which older trackers share.

    Ours count from 1 in each video, whatever other videos there are.
    """

    tracker: Any
    index: int
    ids: dict[int, int] = field(default_factory=dict)

    def number(self, theirs: Int64Array) -> Int64Array:
        """Give each track its id; rows without one stay so."""
        for track in theirs[theirs != NO_TRACK].tolist():
            self.ids.setdefault(track, len(self.ids) + 1)
        return np.array([self.ids.get(track, NO_TRACK) for track in theirs.tolist()], np.int64)


class TrackBoxes:
    """Give detections ids that stay from frame to frame; each video has a tracker of its own."""

    def __init__(self, resources: Resources) -> None:
        self._videos: OrderedDict[tuple[Any, ...], _Video] = OrderedDict()

    def run(self, items: Sequence[TrackBoxesItem]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        return [self._step_or_error(item) for item in items]

    def _step_or_error(self, item: TrackBoxesItem) -> Mapping[str, Any] | Exception:
        """Take one frame; the frames before it are done, so nobody may ask for it twice."""
        try:
            video = self._video_of(item)
        except ValueError as error:
            return error
        given = item.detections
        before = len(video.ids)
        ids = video.number(_follow(video.tracker, given))
        tracked, known = ids != NO_TRACK, ids <= before
        made = given.select(np.arange(len(given)))
        made.tracker_id = ids
        return {
            "detections": made,
            "new": made.select(np.flatnonzero(tracked & ~known)),
            "seen": made.select(np.flatnonzero(tracked & known)),
        }

    def _video_of(self, item: TrackBoxesItem) -> _Video:
        frame = frame_of(item.image)
        asked = (item.tracker, item.lost_after, item.min_frames, item.match_iou)
        key = (frame.video_id, *asked)
        video = self._videos.get(key)
        if video is None or frame.index < video.index:  # it begins, or begins anew
            video = self._videos[key] = _Video(_new_tracker(item), frame.index)
        video.index = frame.index
        self._videos.move_to_end(key)
        while len(self._videos) > item.max_videos:
            self._videos.popitem(last=False)
        return video


def _new_tracker(item: TrackBoxesItem) -> Any:
    try:
        import trackers
    except ImportError as error:
        raise MissingExtraError(
            "track/boxes needs the package 'trackers'. Run: pip install 'sam2-blocks[trackers]' "
            "(it brings opencv-python; where opencv-python-headless is, use an environment of its "
            "own, or pip install --no-deps trackers)"
        ) from error
    options = {} if item.match_iou is None else {"minimum_iou_threshold": item.match_iou}
    return getattr(trackers, CLASSES[item.tracker])(
        lost_track_buffer=item.lost_after,
        frame_rate=FRAME_RATE,
        minimum_consecutive_frames=item.min_frames,
        **options,
    )


def _follow(tracker: Any, given: sv.Detections) -> Int64Array:
    """Ask a tracker for the ids of the rows, in their order; it may change it, and drop some."""
    plain = sv.Detections(
        xyxy=given.xyxy.astype(np.float32).reshape(-1, 4),
        confidence=confidence_of(given),
        class_id=np.zeros(len(given), int) if given.class_id is None else given.class_id,
        data={"row": np.arange(len(given))},
    )
    followed = tracker.update(plain)
    ids = np.full(len(given), NO_TRACK, np.int64)
    if followed.tracker_id is not None and len(followed):
        ids[np.asarray(followed.data["row"], int)] = followed.tracker_id
    return ids
