"""``sam2/propagate@v1``."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

import numpy as np

from sam2_blocks.blocks.embed import ModelItem, executor_for
from sam2_blocks.clips import Clip, ClipPrompt
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import MissingExtraError, ModelError
from sam2_blocks.executors import Tracker, require
from sam2_blocks.files.per_picture import path_beside_file
from sam2_blocks.formats.clip_prompts import load_clip_prompts
from sam2_blocks.formats.clips import ClipReader
from sam2_blocks.masks.detections import tracks_to_detections
from sam2_blocks.options import TrackSettings
from sam2_blocks.strategies.propagation import Propagation, no_tracks
from sam2_blocks.values import Image

MOST_CLIPS = 2
"""Clips at a time: the last frames of one may share a micro-batch with the first of the next."""

Result = Mapping[str, Any] | Exception


class PropagateItem(ModelItem, Protocol):
    """One frame and its clip; see the manifest."""

    image: Image
    clip: Clip
    prompts: tuple[ClipPrompt, ...] | None
    path: str
    missing: Literal["error", "empty"]
    lost: Literal["keep", "drop"]
    non_overlap: bool
    mask_threshold: float
    max_prompt_frames: int
    memory_frames: int | None


@dataclass(frozen=True)
class _Followed:
    """One clip on its way.

    Attributes:
        propagation: finds its objects; None if nothing is prompted, or it cannot be followed.
        classes: class id and name of each object.
        error: why it cannot be followed, which is the answer for all of its frames.
    """

    propagation: Propagation | None = None
    classes: Mapping[int, tuple[int, str]] = field(default_factory=dict)
    error: Exception | None = None

    def close(self) -> None:
        """Free what is held."""
        if self.propagation is not None:
            self.propagation.close()


class Propagate:
    """Follow objects both ways through clips; frames come one by one, and so do the answers."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._clips: OrderedDict[tuple[Any, ...], _Followed] = OrderedDict()

    def run(self, items: Sequence[PropagateItem]) -> Sequence[Result]:
        """See the manifest."""
        return [self._try_find(item) for item in items]

    def finish(self) -> None:
        """Free what is held of every clip."""
        while self._clips:
            self._clips.popitem()[1].close()

    def _try_find(self, item: PropagateItem) -> Result:
        """Answer for one frame; the frames before it are done, so nobody may ask for it twice."""
        try:
            return self._find(item)
        except (ModelError, MissingExtraError):  # no frame would survive these
            raise
        except Exception as error:  # whatever is wrong with this frame, the clip goes on
            return error

    def _find(self, item: PropagateItem) -> Result:
        place = _place_of(item.image, item.clip)
        known = self._clip_of(item)
        if known.error is not None:
            return known.error
        if known.propagation is None:
            tracks = no_tracks(item.image.hw)
        else:
            tracks = known.propagation.find(place, item.image)
        if item.lost == "drop":
            seen = [state != "lost" for state in tracks.state]
            tracks = tracks.select(np.flatnonzero(seen))
        found = tracks_to_detections(tracks, known.classes, image_id=item.image.id)
        return {"predictions": found}

    def _clip_of(self, item: PropagateItem) -> _Followed:
        """Return what is known of the item's clip, which may have just begun."""
        settings = TrackSettings(**{f.name: getattr(item, f.name) for f in fields(TrackSettings)})
        key = (item.clip, item.model, item.device, item.dtype, settings)
        if key not in self._clips:
            while len(self._clips) >= MOST_CLIPS:
                self._clips.popitem(last=False)[1].close()
            self._clips[key] = self._begin(item, settings)
        self._clips.move_to_end(key)
        return self._clips[key]

    def _begin(self, item: PropagateItem, settings: TrackSettings) -> _Followed:
        """Go the way back through a clip."""
        clip = item.clip
        try:
            prompts = self._prompts_of(item)
            if not prompts:
                return _Followed()
            placed = [replace(prompt, frame=clip.place_of(prompt.frame)) for prompt in prompts]
            loaded = executor_for(self._resources, item)
            executor, read = require(loaded, Tracker), ClipReader(clip).read
            propagation = Propagation(executor, read, len(clip), placed, settings)
            propagation.prepare()
        except (OSError, ValueError) as error:
            return _Followed(error=error)
        for place, why in propagation.unread.items():
            warnings.warn(
                f"clip {clip.id!r}: frame {clip.frames[place]} has prompts, and is left out: {why}",
                stacklevel=2,
            )
        return _Followed(propagation, _classes_of(prompts))

    def _prompts_of(self, item: PropagateItem) -> Sequence[ClipPrompt]:
        """Return the prompts that are wired to the step, or those of the file beside the clip."""
        if item.prompts is not None:
            return item.prompts
        path = path_beside_file(item.path, item.clip.path, item.clip.id)
        self._resources.files.note_read(path, item.image.id)
        if path.exists():
            return load_clip_prompts(path)
        if item.missing == "empty":
            return ()
        raise ValueError(
            f"{path}: no such file beside the clip. Set 'prompts' or 'path', or 'missing: empty' "
            "if nothing may be prompted."
        )


def _place_of(image: Image, clip: Clip) -> int:
    """Return the place of a frame in its clip."""
    if image.video is None or image.video.video_id != clip.id:
        of = "no video" if image.video is None else f"the video {image.video.video_id!r}"
        raise ValueError(
            f"picture {image.id!r} is of {of}, and the clip is {clip.id!r}. Give a video as "
            "input, or a folder of frames with --as-video: both come from it then."
        )
    return clip.place_of(image.video.index)


def _classes_of(prompts: Sequence[ClipPrompt]) -> Mapping[int, tuple[int, str]]:
    """Number the classes of a clip's objects by their names."""
    names = {prompt.tracker_id: prompt.class_name for prompt in prompts}
    numbers = {name: number for number, name in enumerate(sorted(set(names.values())))}
    return {key: (numbers[name], name) for key, name in names.items()}
