"""``sam2/track@v1``."""

from __future__ import annotations

import time
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import supervision as sv

from sam2_blocks.blocks.embed import executor_for
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import MissingExtraError, ModelError
from sam2_blocks.executors import Tracker, require
from sam2_blocks.masks.detections import to_rles, tracks_to_detections
from sam2_blocks.masks.rle import rle_area
from sam2_blocks.options import AutomaticSettings, TrackSettings
from sam2_blocks.strategies.automatic import generate_masks
from sam2_blocks.strategies.tracking import FrameTracks, TrackKeeper, TrackPolicy
from sam2_blocks.values import Hw, Image, Prompt, Rle, Tracks, VideoFrame

LOOKED_AHEAD = 16
"""Items of a micro-batch among which the next frames of each video are looked for."""

Result = Mapping[str, Any] | Exception
Key = tuple[Any, ...]


@dataclass
class _Video:
    """What is known of one video.

    Attributes:
        keeper: its tracks.
        image_hw: size of its frames.
        index: number of the last frame.
        used: when that came, in seconds.
        classes: class id and name of each track, as they were prompted.
        confidences: of the detections they were prompted by, where these had any.
    """

    keeper: TrackKeeper
    image_hw: Hw
    index: int
    used: float
    classes: dict[int, tuple[int, str]] = field(default_factory=dict)
    confidences: dict[int, float] = field(default_factory=dict)

    def remember(self, wanted: _Wanted, shown: Mapping[int, int]) -> None:
        """Keep what the prompts say of the tracks they showed, by the tracks' ids."""
        if wanted.classes:
            self.classes |= {key: wanted.classes[row] for key, row in shown.items()}
        if wanted.confidences:
            self.confidences |= {key: wanted.confidences[row] for key, row in shown.items()}


@dataclass(frozen=True)
class _Wanted:
    """What one frame's inputs say of objects: prompts, ids, and classes where they have any."""

    prompts: tuple[Prompt | Rle, ...] = ()
    tracker_ids: tuple[int | None, ...] = ()
    classes: tuple[tuple[int, str], ...] = ()
    confidences: tuple[float, ...] = ()


class Track:
    """Follow objects through videos; the state of each is kept from frame to frame."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._videos: OrderedDict[Key, _Video] = OrderedDict()
        self._said: set[tuple[str, str]] = set()

    def run(self, items: Sequence[Any]) -> Sequence[Result]:
        """See the manifest."""
        keys = [_key_of(item) for item in items]
        results = []
        for place, item in enumerate(items):
            coming = slice(place + 1, place + 1 + LOOKED_AHEAD)
            self._announce(items[coming], keys[coming])
            results.append(self._try_step(item, keys[place]))
        return results

    def finish(self) -> None:
        """Free the state of every video."""
        while self._videos:
            self._videos.popitem()[1].keeper.close()

    def _announce(self, coming: Sequence[Any], keys: Sequence[Key]) -> None:
        """Have the next frames of videos that are followed encoded meanwhile."""
        announced: Counter[Key] = Counter()
        for item, key in zip(coming, keys, strict=True):
            video = self._videos.get(key)
            if video is not None and announced[key] < video.keeper.ahead:
                video.keeper.expect(item.image)
                announced[key] += 1

    def _try_step(self, item: Any, key: Key) -> Result:
        """Take one frame; the frames before it are done, so nobody may ask for it twice."""
        try:
            return self._step(item, key)
        except (ModelError, MissingExtraError):  # no frame would survive these
            raise
        except Exception as error:  # whatever is wrong with this frame, the video goes on
            return error

    def _step(self, item: Any, key: Key) -> Result:
        frame = frame_of(item.image)
        video = self._video_of(item, frame, key)
        wanted = _wanted_of(item)
        if wanted is None:
            wanted = self._everything(item, video)
        found = video.keeper.step(item.image, wanted.prompts, wanted.tracker_ids)
        video.index, video.used = frame.index, time.monotonic()
        video.remember(wanted, found.shown)
        if found.refused:
            count = len(found.refused)
            self._say(frame, f"max_objects = {item.max_objects} are followed; {count} more are not")
        return _outputs(item, found, video)

    def _video_of(self, item: Any, frame: VideoFrame, key: Key) -> _Video:
        """Return what is known of the frame's video, which may have just begun."""
        self._forget_old(item)
        known = self._videos.get(key)
        if known is not None and frame.index < known.index:
            reason = f"frame {frame.index} comes after frame {known.index}"
        elif known is not None and known.image_hw != item.image.hw:
            reason = f"frame {frame.index} has another size than those before it"
        elif known is not None:
            self._videos.move_to_end(key)
            return known
        else:
            reason = ""
        if reason:
            self._say(frame, f"{reason}, so tracking begins anew")
            self._videos.pop(key).keeper.close()
        made = self._videos[key] = self._begin(item, frame)
        while len(self._videos) > item.max_videos:
            self._videos.popitem(last=False)[1].keeper.close()
        return made

    def _begin(self, item: Any, frame: VideoFrame) -> _Video:
        loaded = executor_for(self._resources, item)
        session = require(loaded, Tracker).track(TrackSettings(**dict(_settings(item))))
        keeper = TrackKeeper(session, TrackPolicy(**dict(_policy(item))))
        return _Video(keeper, item.image.hw, frame.index, time.monotonic())

    def _forget_old(self, item: Any) -> None:
        """Free videos of which nothing has come for too long."""
        oldest = time.monotonic() - item.idle_s
        for key in [key for key, video in self._videos.items() if video.used < oldest]:
            self._videos.pop(key).keeper.close()

    def _everything(self, item: Any, video: _Video) -> _Wanted:
        """Segment everything on the first frame, where nothing is asked for."""
        if video.keeper.has_started:
            return _Wanted()
        executor = executor_for(self._resources, item)
        [embedding] = executor.embed([item.image])
        settings = AutomaticSettings(
            points_per_side=item.points_per_side,
            pred_iou_thresh=item.pred_iou_thresh,
            stability_score_thresh=item.stability_score_thresh,
        )
        found = generate_masks(executor, embedding, settings)
        most = item.max_area_ratio * np.prod(item.image.hw)
        rles = tuple(rle for rle in found.prediction.rles if rle_area(rle) <= most)
        return _Wanted(rles, (None,) * len(rles))

    def _say(self, frame: VideoFrame, what: str) -> None:
        """Warn once for each video and kind of event."""
        kind = what.rpartition(" ")[2]
        if (frame.video_id, kind) not in self._said:
            self._said.add((frame.video_id, kind))
            warnings.warn(f"video {frame.video_id!r}: {what}", stacklevel=2)


def frame_of(image: Image) -> VideoFrame:
    """Return which frame of which video a picture is.

    Raises:
        ValueError: if it is none.
    """
    if image.video is None:
        raise ValueError(
            f"picture {image.id!r} is no frame of a video. Give a video as input, a folder of "
            "frames or a picture that moves with --as-video, or an Image with "
            "video=VideoFrame(…)."
        )
    return image.video


def _wanted_of(item: Any) -> _Wanted | None:
    """Read the frame's prompts; None where the step has no input for them."""
    if item.prompts is not None:
        return _Wanted(item.prompts.prompts, (None,) * len(item.prompts))
    detections: sv.Detections | None = item.masks if item.masks is not None else item.boxes
    if detections is None:
        return None
    if item.masks is not None:
        prompts: tuple[Prompt | Rle, ...] = to_rles(detections, item.image.hw)
    else:
        prompts = tuple(Prompt(box_xyxy=box.astype(np.float32)) for box in detections.xyxy)
    given = detections.tracker_id
    ids = [None] * len(detections) if given is None else [_id_of(value) for value in given]
    confidences = () if detections.confidence is None else detections.confidence.tolist()
    return _Wanted(prompts, tuple(ids), tuple(_classes_of(detections)), tuple(confidences))


def _id_of(tracker_id: Any) -> int | None:
    """Read a tracker's id; trackers give -1 to what they have not followed yet."""
    return int(tracker_id) if tracker_id >= 0 else None


def _classes_of(detections: sv.Detections) -> Iterator[tuple[int, str]]:
    names = detections.data.get("class_name")
    for row in range(len(detections)):
        class_id = 0 if detections.class_id is None else int(detections.class_id[row])
        plain = "object" if detections.class_id is None else f"class_{class_id}"
        yield class_id, plain if names is None else str(names[row])


def _key_of(item: Any) -> Key:
    """Name the video a frame is of, and all that decides how it is followed; () if it is none."""
    if item.image.video is None:
        return ()
    named = (item.image.video.video_id, item.model, item.device, item.dtype)
    return (*named, *_policy(item), *_settings(item))


def _policy(item: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, getattr(item, field.name)) for field in fields(TrackPolicy))


def _settings(item: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, getattr(item, field.name)) for field in fields(TrackSettings))


def _outputs(item: Any, found: FrameTracks, video: _Video) -> Mapping[str, sv.Detections]:
    def of(tracks: Tracks) -> sv.Detections:
        return tracks_to_detections(
            tracks,
            video.classes,
            image_id=item.image.id,
            frame_index=video.index,
            confidences=video.confidences,
        )

    tracks = found.tracks
    states = np.array(tracks.state, dtype=object)
    shown = of(tracks if item.lost == "keep" else tracks.select(np.flatnonzero(states != "lost")))
    assert shown.confidence is not None
    return {
        "predictions": shown.select(shown.confidence >= item.min_confidence),
        "new": of(tracks.select(np.flatnonzero(states == "new"))),
        "ended": of(found.ended),
    }
