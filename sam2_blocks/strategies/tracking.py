"""Which prompts start tracks, which show a track anew, and when a track has ended.

A *track* is one object that is followed; to *show it anew* is to prompt it again, so that it is
remembered by this frame too. A detector answers on every frame, mostly about objects that are
followed already. A detection belongs to a track if it has its id, or overlaps it enough: mask with
mask where both have one, else box with box. A lost track is looked for where it was seen last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from types import MappingProxyType
from typing import Literal

import numpy as np

from sam2_blocks.executors import TrackSession
from sam2_blocks.masks.boxes import box_iou
from sam2_blocks.masks.rle import rle_contains, rle_iou, rle_to_box_xyxy
from sam2_blocks.prompts import check_prompts
from sam2_blocks.values import Float32Array, Image, Int64Array, Prompt, PromptSet, Rle, Tracks

PromptMode = Literal["first", "every_n", "new_only", "every"]


def track_frames(
    session: TrackSession,
    images: Iterable[Image],
    prompts: PromptSet | Sequence[Prompt | Rle] | None = None,
    tracker_ids: Sequence[int | None] | None = None,
) -> Iterator[Tracks]:
    """Follow objects through frames, from prompts on the first of them.

    The results are those of one `TrackSession.step` after the other. It is faster where frames are
    at hand: a few are read ahead and announced, so that one object keeps several cores busy.

    Args:
        session: of the video, whatever it follows already.
        images: the frames in order; read only as they are needed, and a few before that.
        prompts: objects on the first frame, as in `step`.
        tracker_ids: the object each prompt is about, as in `step`.

    Yields:
        The objects of each frame.

    Raises:
        ValueError: as `step`.

    Example:
        >>> coins = read_image("examples/pictures/coins.jpg")
        >>> with load_executor("nano", device="cpu").track() as session:
        ...     boxes = PromptSet.from_boxes([[36, 466, 150, 576]])
        ...     found = track_frames(session, [coins] * 3, boxes)
        ...     print([tracks.state for tracks in found])
        [('new',), ('tracked',), ('tracked',)]
    """
    coming = iter(images)
    window: deque[Image] = deque()
    while window or (window := deque(islice(coming, 1))):
        image = window.popleft()
        window.extend(islice(coming, session.ahead - len(window)))
        for following in window:
            session.expect(following)
        yield session.step(image, prompts, tracker_ids)
        prompts = tracker_ids = None


@dataclass(frozen=True)
class TrackPolicy:
    """When to listen to prompts, and when a track has ended.

    Attributes:
        prompt: ``first`` starts tracks on the first frame with prompts, and never again;
            ``new_only`` on every frame, for prompts that lie on no track; ``every`` also shows
            tracks anew by the prompts that lie on them; ``every_n`` does that on every n-th frame,
            or on the next one with prompts.
        prompt_every: the n of ``every_n``, in frames.
        match_iou: a prompt that overlaps a track at least this much lies on that track, 0 to 1.
        max_objects: tracks at a time; further prompts start none.
        lost_after: a track that is lost for this many frames in a row has ended.
        min_object_score: a track is lost where its score, a logit, is not above this.
        refine: ``low_score`` shows a track anew by the prompt that lies on it, on any frame where
            its score is below ``refine_below``.
        refine_below: a score, a logit.
    """

    prompt: PromptMode = "first"
    prompt_every: int = 30
    match_iou: float = 0.5
    max_objects: int = 64
    lost_after: int = 30
    min_object_score: float = 0.0
    refine: Literal["never", "low_score"] = "never"
    refine_below: float = 3.0


@dataclass(frozen=True, eq=False)
class FrameTracks:
    """One frame, after what its prompts changed.

    Attributes:
        tracks: every object that is followed.
        ended: objects that are not followed any more, as of this frame.
        shown: which prompt started each new track or showed an old one anew, by the track's id.
        refused: prompts that would have started one track too many.
    """

    tracks: Tracks
    ended: Tracks
    shown: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    refused: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which prompts to follow: their indices, and whom they are about; None is a new object."""

    prompts: tuple[int, ...] = ()
    tracker_ids: tuple[int | None, ...] = ()
    refused: tuple[int, ...] = ()


class TrackKeeper:
    """Follows the objects of one video by a policy.

    Args:
        session: of the video, nothing followed yet.
        policy: see `TrackPolicy`.
    """

    def __init__(self, session: TrackSession, policy: TrackPolicy) -> None:
        self._session = session
        self._policy = policy
        self._frames = 0
        self._due = 0
        self._has_started = False
        self._lost: dict[int, int] = {}
        self._seen_at: dict[int, Int64Array] = {}

    @property
    def has_started(self) -> bool:
        """Whether anything has been followed yet."""
        return self._has_started

    @property
    def ahead(self) -> int:
        """How many frames are worth announcing; see `TrackSession.ahead`."""
        return self._session.ahead

    def expect(self, image: Image) -> None:
        """Announce a frame that is taken soon."""
        self._session.expect(image)

    def step(
        self,
        image: Image,
        prompts: Sequence[Prompt | Rle] = (),
        tracker_ids: Sequence[int | None] | None = None,
    ) -> FrameTracks:
        """Take the next frame.

        Args:
            image: the frame.
            prompts: what is known of objects on it, one an object.
            tracker_ids: the object each is about, where that is known.

        Returns:
            The objects on this frame, those that ended, and which prompts were used.

        Raises:
            ValueError: if a prompt means nothing in the frame; then nothing has changed.
        """
        prompts = _check(prompts, image)
        ids = _check_ids(tracker_ids, len(prompts))
        listens = self._may_start() and len(prompts) > 0
        if not self._session.tracker_ids:
            plan = self._limit(range(len(prompts)), ids, live=0) if self._may_start() else _Plan()
            tracks = self._session.step(image, *_chosen(plan, prompts))
        else:
            tracks = self._session.step(image)
            plan = self._plan(self._judge(tracks), prompts, ids)
            if plan.prompts:
                tracks = self._session.prompt(*_chosen(plan, prompts))
        if listens:
            self._due = self._frames + self._policy.prompt_every
        self._frames += 1
        return self._close(self._judge(tracks), plan)

    def close(self) -> None:
        """Free the session."""
        self._session.close()

    def _may_start(self) -> bool:
        """Say whether prompts of this frame may start tracks."""
        policy = self._policy
        if policy.prompt == "first":
            return not self._has_started
        if policy.prompt == "every_n":
            return self._frames >= self._due
        return True

    def _shows_anew(self, tracks: Tracks, row: int) -> bool:
        """Say whether a prompt that lies on this track is to show it anew."""
        policy = self._policy
        if policy.refine == "low_score" and tracks.object_score[row] < policy.refine_below:
            return True
        return policy.prompt in ("every", "every_n") and self._may_start()

    def _plan(
        self, tracks: Tracks, prompts: Sequence[Prompt | Rle], ids: Sequence[int | None]
    ) -> _Plan:
        """Tell prompts about new objects from those about tracks."""
        if not prompts:
            return _Plan()
        overlaps = np.array([self._overlaps(prompt, tracks) for prompt in prompts], np.float32)
        for index, tracker_id in enumerate(ids):
            overlaps[index, tracks.tracker_id == tracker_id] = np.inf  # the id decides
        rows, best = overlaps.argmax(1), overlaps.max(1)
        lying = best >= self._policy.match_iou
        anew = {}
        for row in np.unique(rows[lying]).tolist():
            if self._shows_anew(tracks, row):
                candidates = np.flatnonzero(lying & (rows == row))
                anew[int(candidates[best[candidates].argmax()])] = int(tracks.tracker_id[row])
        fresh = np.flatnonzero(~lying).tolist() if self._may_start() else []
        plan = self._limit(fresh, ids, live=len(tracks))
        return replace(
            plan,
            prompts=(*anew, *plan.prompts),
            tracker_ids=(*anew.values(), *plan.tracker_ids),
        )

    def _overlaps(self, prompt: Prompt | Rle, tracks: Tracks) -> Float32Array:
        """Say how much a prompt overlaps each track, 0 to 1."""
        found = np.zeros(len(tracks), np.float32)
        for row, (tracker_id, rle) in enumerate(
            zip(tracks.tracker_id.tolist(), tracks.prediction.rles, strict=True)
        ):
            is_seen = len(rle.counts) > 1
            place = tracks.prediction.mask_box_xyxy[row] if is_seen else None
            place = self._seen_at.get(tracker_id) if place is None else place
            found[row] = _overlap(prompt, rle if is_seen else None, place)
        return found

    def _limit(self, fresh: Sequence[int], ids: Sequence[int | None], *, live: int) -> _Plan:
        """Start no more tracks than there may be."""
        room = max(self._policy.max_objects - live, 0)
        started = tuple(fresh[:room])
        return _Plan(started, tuple(ids[index] for index in started), tuple(fresh[room:]))

    def _judge(self, tracks: Tracks) -> Tracks:
        """Call tracks lost whose score is not above the policy's."""
        least = self._policy.min_object_score
        state = tuple(
            "lost" if old == "tracked" and score <= least else old
            for old, score in zip(tracks.state, tracks.object_score, strict=True)
        )
        return replace(tracks, state=state)

    def _close(self, tracks: Tracks, plan: _Plan) -> FrameTracks:
        """Count how long tracks have been lost, and end those that were for too long."""
        self._has_started |= len(tracks) > 0
        lost = {}
        for row, (tracker_id, state) in enumerate(
            zip(tracks.tracker_id, tracks.state, strict=True)
        ):
            lost[int(tracker_id)] = self._lost.get(int(tracker_id), 0) + 1 if state == "lost" else 0
            if len(tracks.prediction.rles[row].counts) > 1:
                self._seen_at[int(tracker_id)] = tracks.prediction.mask_box_xyxy[row]
        over = np.array([count >= self._policy.lost_after for count in lost.values()], bool)
        for tracker_id in tracks.tracker_id[over].tolist():
            self._session.remove(tracker_id)
            self._seen_at.pop(tracker_id, None)
            del lost[tracker_id]
        self._lost = lost
        return FrameTracks(
            tracks.select(np.flatnonzero(~over)),
            tracks.select(np.flatnonzero(over)),
            _who_was_shown(tracks, plan),
            plan.refused,
        )


def _check(prompts: Sequence[Prompt | Rle], image: Image) -> list[Prompt | Rle]:
    checked: list[Prompt | Rle] = []
    for index, prompt in enumerate(prompts):
        if isinstance(prompt, Rle):
            if prompt.size != image.hw:
                raise ValueError(
                    f"prompt {index}: a mask of size {prompt.size} is not of this frame, {image.hw}"
                )
            checked.append(prompt)
            continue
        try:
            checked += check_prompts(PromptSet((prompt,)), image.hw, warn=False).prompts
        except ValueError as error:
            message = str(error).removeprefix("prompt 0").lstrip(": ")
            raise ValueError(f"prompt {index}: {message}") from None
    return checked


def _check_ids(tracker_ids: Sequence[int | None] | None, count: int) -> tuple[int | None, ...]:
    ids = tuple(tracker_ids) if tracker_ids is not None else (None,) * count
    known = [tracker_id for tracker_id in ids if tracker_id is not None]
    if len(ids) != count or len(set(known)) < len(known):
        raise ValueError(f"wants one id a prompt, none twice; got {list(ids)} for {count} prompts")
    return ids


def _chosen(
    plan: _Plan, prompts: Sequence[Prompt | Rle]
) -> tuple[list[Prompt | Rle], tuple[int | None, ...]]:
    return [prompts[index] for index in plan.prompts], plan.tracker_ids


def _overlap(prompt: Prompt | Rle, mask: Rle | None, box_xyxy: Int64Array | None) -> float:
    """Say how much a prompt overlaps one track, that is seen as a mask or was seen in a box."""
    given: Float32Array | None
    if isinstance(prompt, Rle):
        if mask is not None:
            return rle_iou(prompt, mask)
        given = _edges(rle_to_box_xyxy(prompt))
    else:
        given = prompt.box_xyxy
    if given is not None:
        return 0.0 if box_xyxy is None else box_iou(given, _edges(box_xyxy))
    assert isinstance(prompt, Prompt)
    if prompt.point_coords is None or prompt.point_labels is None or mask is None:
        return 0.0
    inside = [rle_contains(mask, point) for point in prompt.point_coords[prompt.point_labels == 1]]
    return float(bool(inside) and all(inside))


def _edges(box_xyxy: Int64Array) -> Float32Array:
    """Turn inclusive pixel indices into the edges around those pixels."""
    edges: Float32Array = (box_xyxy + np.array([0, 0, 1, 1])).astype(np.float32)
    return edges


def _who_was_shown(tracks: Tracks, plan: _Plan) -> Mapping[int, int]:
    """Name the tracks that prompts started or showed anew; new ids rise in the prompts' order."""
    given = {tracker_id for tracker_id in plan.tracker_ids if tracker_id is not None}
    fresh = (
        int(tracker_id)
        for tracker_id, state in zip(tracks.tracker_id, tracks.state, strict=True)
        if state == "new" and int(tracker_id) not in given
    )
    return {
        next(fresh) if tracker_id is None else tracker_id: index
        for index, tracker_id in zip(plan.prompts, plan.tracker_ids, strict=True)
    }
