"""A video as a stream: frames in, objects out, with a memory that does not grow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from sam2_blocks.executor.device.fair_lock import FairLock
from sam2_blocks.executor.rle.overlap import logits_to_disjoint_rles
from sam2_blocks.executor.rle.postprocess import logits_to_rles
from sam2_blocks.executor.sam2.ahead import FramesAhead
from sam2_blocks.executor.sam2.answer import LOGIT_LIMIT
from sam2_blocks.executor.sam2.follow import Follower
from sam2_blocks.executor.sam2.heads import ObjectAnswers
from sam2_blocks.executor.sam2.memory import FrameMemory, MemoryBounds, ObjectMemory
from sam2_blocks.forks import ForkSafeLock
from sam2_blocks.formats.images import check_image
from sam2_blocks.options import TrackSettings
from sam2_blocks.prompts import check_prompts, to_prompt_set
from sam2_blocks.values import (
    Embedding,
    Hw,
    Image,
    MaskPrediction,
    Prompt,
    PromptSet,
    Rle,
    Tracks,
    TrackState,
)

FIRST_ID = 1


@dataclass(frozen=True, eq=False)
class _Object:
    """One object after the last frame.

    Attributes:
        memory: what is remembered of it.
        before: what was remembered before the last frame, for a correction of that frame.
        answer: where it is on the last frame.
        state: what to call it there.
    """

    memory: ObjectMemory
    before: ObjectMemory
    answer: ObjectAnswers
    state: TrackState


@dataclass(frozen=True, eq=False)
class _Stream:
    """All a session knows; replaced as a whole, so that a step that fails changes nothing."""

    steps: int = 0
    next_id: int = FIRST_ID
    image_hw: Hw | None = None
    frame: Embedding | None = None
    objects: Mapping[int, _Object] = field(default_factory=dict)


class Sam2TrackSession:
    """Follows objects through one video; see `sam2_blocks.executors.TrackSession`.

    Frames come one by one and are not kept: of each object the session remembers a few small maps
    and vectors, of the last frame its embedding. A step that raises changes nothing, and the
    session goes on with the next. One thread at a time; others wait.

    Args:
        follower: answers for objects on frames.
        embed: encodes a frame.
        bounds: how much to remember.
        settings: see `TrackSettings`.
        device_lock: taken while the device computes.
        ahead: encodes frames that are announced.
    """

    def __init__(
        self,
        follower: Follower,
        embed: Callable[[Image], Embedding],
        *,
        bounds: MemoryBounds,
        settings: TrackSettings,
        device_lock: FairLock,
        ahead: FramesAhead,
    ) -> None:
        self._follower = follower
        self._embed = embed
        self._bounds = bounds
        self._settings = settings
        self._device_lock = device_lock
        self._ahead = ahead
        self._stream = _Stream()
        self._is_open = True
        self._lock = ForkSafeLock()

    def __enter__(self) -> Sam2TrackSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def tracker_ids(self) -> tuple[int, ...]:
        """The objects that are followed, in the order they were started."""
        return tuple(self._stream.objects)

    @property
    def nbytes(self) -> int:
        """Bytes held by what is remembered of all objects."""
        objects = self._stream.objects.values()
        return sum(known.memory.nbytes for known in objects)

    @property
    def ahead(self) -> int:
        """How many frames are worth announcing before they are given; 0 if none."""
        return self._ahead.most

    def expect(self, image: Image) -> None:
        """Announce a frame that `step` is given soon, so that it is encoded meanwhile.

        Each on a core of its own, while objects are followed on the frames before it; see `ahead`.
        Nothing is done where that saves no time, or nothing is followed. A frame that is announced
        and never given costs only its encoding.

        Args:
            image: the frame, the very object that is given later.

        Raises:
            ValueError: if the session is closed.
        """
        with self._lock.held():
            if self._open_stream().objects:
                self._ahead.expect(image)

    def step(
        self,
        image: Image,
        prompts: PromptSet | Sequence[Prompt | Rle] | None = None,
        tracker_ids: Sequence[int | None] | None = None,
    ) -> Tracks:
        """Take the next frame: find every object again, and start those that are prompted.

        Args:
            image: the frame, of the size of the frames before.
            prompts: one an object: points, a box, earlier logits, or its mask on this frame, or
                what `to_prompt_set` makes prompts of. Each starts a new object, or shows a known
                one anew, which is then remembered by this frame too.
            tracker_ids: whom each prompt is about; None, for one or for all, is a new object, and
                an id that is not known is a new object with this id.

        Returns:
            All objects on this frame.

        Raises:
            ImageError: if the frame is not uint8 RGB (H, W, 3).
            TypeError: if the prompts are none.
            ValueError: if the frame has another size than those before, a prompt means nothing in
                it, ids are not one a prompt, or the session is closed.
            ModelError: if the device has no memory for a single object.
        """
        with self._lock.held():
            stream = self._open_stream()
            _check_frame(image, stream.image_hw)
            wanted = _check_wanted(image.id, image.hw, prompts)
            ids = _assign_ids(tracker_ids, len(wanted), stream.next_id)
            if not wanted and not stream.objects:
                self._stream = _Stream(stream.steps + 1, stream.next_id, image.hw)
                return self._tracks(self._stream)
            announced = self._ahead.take(image)
            frame = announced or self._embed(image)
            requests = dict(zip(ids, wanted, strict=True))
            with self._device_lock, torch.inference_mode():
                objects = self._advance(stream, frame, requests, apart=announced is not None)
            after = _Stream(
                steps=stream.steps + 1,
                next_id=_next_id(stream.next_id, ids),
                image_hw=image.hw,
                frame=frame,
                objects=objects,
            )
            tracks = self._tracks(after)
            self._stream = after
            return tracks

    def prompt(
        self,
        prompts: PromptSet | Sequence[Prompt | Rle],
        tracker_ids: Sequence[int | None] | None = None,
    ) -> Tracks:
        """Start objects, or show known ones anew, on the frame of the last step.

        As if they had been prompted with `step`, for prompts that depend on what it found.

        Args:
            prompts: as in `step`.
            tracker_ids: as in `step`.

        Returns:
            All objects on the frame of the last step.

        Raises:
            ValueError: as in `step`; or if nothing was followed on that frame, so that nobody
                looked at it.
        """
        with self._lock.held():
            stream = self._open_stream()
            frame = stream.frame
            if frame is None:
                raise ValueError(
                    "nothing was followed on the last frame, so it was not encoded; give the "
                    "prompts to step()"
                )
            wanted = _check_wanted(frame.image_id, frame.image_hw, prompts)
            ids = _assign_ids(tracker_ids, len(wanted), stream.next_id)
            befores = {key: known.before for key, known in stream.objects.items()}
            with self._device_lock, torch.inference_mode():
                requests = dict(zip(ids, wanted, strict=True))
                started = self._start(frame, stream.steps - 1, requests, befores)
            fresh = [key for key in ids if key in befores and stream.objects[key].state == "new"]
            started |= {key: replace(started[key], state="new") for key in fresh}
            after = replace(
                stream,
                next_id=_next_id(stream.next_id, ids),
                objects={**stream.objects, **started},
            )
            tracks = self._tracks(after)
            self._stream = after
            return tracks

    def correct(self, tracker_id: int, prompt: Prompt | Rle, *, keep: bool = False) -> Tracks:
        """Mend one object on the frame of the last step.

        Args:
            tracker_id: which object.
            prompt: points or a box, read beside what was answered before; or its mask.
            keep: remember the object by this frame as if it had been prompted on it, for as long
                as `TrackSettings.max_prompt_frames` lets it; False forgets it as soon as any other
                frame, like the official predictor.

        Returns:
            All objects on the frame of the last step.

        Raises:
            ValueError: if the object is not followed, the prompt means nothing in the frame, or the
                session is closed.
        """
        with self._lock.held():
            stream = self._open_stream()
            known = _find(stream, tracker_id)
            frame = stream.frame
            assert frame is not None
            wanted = _check_prompt(_one(prompt), frame.image_hw)
            with self._device_lock, torch.inference_mode():
                mended = self._mend(known, frame, stream.steps - 1, wanted, keep=keep)
            after = replace(stream, objects={**stream.objects, tracker_id: mended})
            tracks = self._tracks(after)
            self._stream = after
            return tracks

    def remove(self, tracker_id: int) -> None:
        """Forget one object.

        Raises:
            ValueError: if it is not followed, or the session is closed.
        """
        with self._lock.held():
            stream = self._open_stream()
            _find(stream, tracker_id)
            left = {key: known for key, known in stream.objects.items() if key != tracker_id}
            self._stream = replace(stream, objects=left)

    def reset(self) -> None:
        """Forget all objects and the frames' size; ids of new objects go on.

        Raises:
            ValueError: if the session is closed.
        """
        with self._lock.held():
            self._stream = _Stream(next_id=self._open_stream().next_id)
            self._ahead.forget()

    def close(self) -> None:
        """Free everything; the session cannot be used any more."""
        with self._lock.held():
            self._is_open = False
            self._stream = _Stream()
            self._ahead.forget()

    def _open_stream(self) -> _Stream:
        if not self._is_open:
            raise ValueError("this session is closed; begin another with executor.track()")
        return self._stream

    def _advance(
        self,
        stream: _Stream,
        frame: Embedding,
        wanted: Mapping[int, Prompt | Rle],
        *,
        apart: bool,
    ) -> dict[int, _Object]:
        """Answer for every object, known and new, in the order they were started.

        ``apart`` leaves the other cores to frames that are encoded meanwhile.
        """
        followed = {key: old for key, old in stream.objects.items() if key not in wanted}
        memories = [old.memory for old in followed.values()]
        found = self._follower.follow(frame, memories, stream.steps, apart=apart)
        tracked = self._follower.remember(frame, found, prompted=False, apart=apart)
        answers = {
            key: self._followed(old, answer, self._memory_of(stream.steps, answer, features))
            for (key, old), answer, features in zip(followed.items(), found, tracked, strict=True)
        }
        befores = {key: old.memory for key, old in stream.objects.items()}
        answers.update(self._start(frame, stream.steps, wanted, befores))
        return {key: answers[key] for key in [*stream.objects, *wanted] if key in answers}

    def _start(
        self,
        frame: Embedding,
        step: int,
        wanted: Mapping[int, Prompt | Rle],
        befores: Mapping[int, ObjectMemory],
    ) -> dict[int, _Object]:
        """Answer for objects that are prompted on a frame, given what is known of them before."""
        by_mask = {key: value for key, value in wanted.items() if isinstance(value, Rle)}
        by_prompt = {key: value for key, value in wanted.items() if isinstance(value, Prompt)}
        found = [
            *self._follower.take(frame, list(by_mask.values())),
            *self._follower.start(frame, list(by_prompt.values())),
        ]
        features = self._follower.remember(frame, found, prompted=True)
        started = {}
        for key, answer, made in zip([*by_mask, *by_prompt], found, features, strict=True):
            before = befores.get(key, ObjectMemory())
            after = before.add_prompted(self._memory_of(step, answer, made), self._bounds)
            state = _state_of(answer) if key in befores else "new"
            started[key] = _Object(after, before, answer, state)
        return started

    def _followed(self, old: _Object, answer: ObjectAnswers, memory: FrameMemory) -> _Object:
        after = old.memory.add_tracked(memory, self._bounds)
        return _Object(after, old.memory, answer, _state_of(answer))

    def _mend(
        self, known: _Object, frame: Embedding, step: int, wanted: Prompt | Rle, *, keep: bool
    ) -> _Object:
        is_prompted = known.memory.prompted[-1].step == step
        if isinstance(wanted, Rle):
            answer = self._follower.take(frame, [wanted])[0]
        elif is_prompted:
            answer = self._follower.start(frame, [wanted], [known.answer])[0]
        else:
            answer = self._follower.correct(
                frame, known.before, step, prompt=wanted, earlier=known.answer
            )
        features = self._follower.remember(frame, [answer], prompted=True)[0]
        memory = self._memory_of(step, answer, features)
        add = known.before.add_prompted if keep or is_prompted else known.before.add_tracked
        state = known.state if known.state == "new" else _state_of(answer)
        return _Object(add(memory, self._bounds), known.before, answer, state)

    def _memory_of(self, step: int, answer: ObjectAnswers, features: torch.Tensor) -> FrameMemory:
        return FrameMemory(step, features, answer.pointer[0])

    def _tracks(self, stream: _Stream) -> Tracks:
        """Encode the masks of all objects, and bring what is known of them to the host."""
        objects, image_hw = stream.objects.values(), stream.image_hw
        assert image_hw is not None
        if not objects:
            return _no_tracks(image_hw)
        encode = logits_to_disjoint_rles if self._settings.non_overlap else logits_to_rles
        with self._device_lock, torch.inference_mode():
            found = ObjectAnswers.cat([known.answer for known in objects])
            rles, boxes = encode(found.logits, image_hw, threshold=self._settings.mask_threshold)
            logits = found.logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).cpu().numpy()
            iou, score = found.iou.cpu().numpy(), found.object_score[:, 0].cpu().numpy()
        return Tracks(
            MaskPrediction(image_hw, tuple(rles), iou, logits, boxes),
            tracker_id=np.array(list(stream.objects), np.int64),
            object_score=score,
            state=tuple(known.state for known in objects),
        )


def _state_of(answer: ObjectAnswers) -> TrackState:
    return "tracked" if bool(answer.object_score > 0) else "lost"


def _no_tracks(image_hw: Hw) -> Tracks:
    nothing = np.zeros(0, np.float32)
    prediction = MaskPrediction(
        image_hw, (), nothing, np.zeros((0, 0, 0), np.float32), np.zeros((0, 4), np.int64)
    )
    return Tracks(prediction, np.zeros(0, np.int64), nothing, ())


def _check_frame(image: Image, image_hw: Hw | None) -> None:
    check_image(image)
    if image_hw is not None and image.hw != image_hw:
        (height, width), (was_height, was_width) = image.hw, image_hw
        raise ValueError(
            f"frame {image.id!r} is {width}x{height}, but the frames before it are "
            f"{was_width}x{was_height}. Resize it, or begin anew with reset()."
        )


def _check_wanted(
    name: str, image_hw: Hw, prompts: PromptSet | Sequence[Prompt | Rle] | None
) -> list[Prompt | Rle]:
    wanted = []
    for index, prompt in enumerate(_given(prompts)):
        try:
            wanted.append(_check_prompt(prompt, image_hw))
        except ValueError as error:
            message = str(error).removeprefix("prompt 0").lstrip(": ")
            raise ValueError(f"frame {name!r}: prompt {index}: {message}") from None
    return wanted


def _given(prompts: object) -> tuple[Prompt | Rle, ...]:
    """Take prompts and masks, or whatever else stands for prompts, see `to_prompt_set`.

    Raises:
        TypeError: if it is nothing of that.
    """
    if prompts is None:
        return ()
    given = [prompts] if isinstance(prompts, Rle) else prompts
    if not isinstance(given, list | tuple) or not any(isinstance(one, Rle) for one in given):
        return to_prompt_set(given).prompts
    for one in given:
        if not isinstance(one, Prompt | Rle):
            raise TypeError(f"beside masks wants Prompts, got {type(one).__name__}")
    return tuple(given)


def _one(prompt: object) -> Prompt | Rle:
    given = _given(prompt)
    if len(given) != 1:
        raise ValueError(f"wants one prompt, for one object, got {len(given)}")
    return given[0]


def _check_prompt(prompt: Prompt | Rle, image_hw: Hw) -> Prompt | Rle:
    """Check a prompt or a mask for a frame of this size.

    Raises:
        ValueError: see `check_prompts`; or if a mask has another size.
    """
    if isinstance(prompt, Rle):
        if prompt.size != image_hw:
            raise ValueError(f"a mask of size {prompt.size} is not of this frame, {image_hw}")
        return prompt
    return check_prompts(PromptSet((prompt,)), image_hw, warn=False).prompts[0]


def _assign_ids(tracker_ids: Sequence[int | None] | None, count: int, next_id: int) -> list[int]:
    """Number the prompts: ids that are given as they are, the others with ids not used before."""
    given = [None] * count if tracker_ids is None else list(tracker_ids)
    known = [int(tracker_id) for tracker_id in given if tracker_id is not None]
    if len(given) != count:
        raise ValueError(f"tracker_ids wants one id a prompt, got {len(given)} for {count} prompts")
    if len(set(known)) < len(known) or min(known, default=0) < 0:
        raise ValueError(f"tracker_ids must be different and not negative, got {known}")
    free = itertools.count(_next_id(next_id, known))
    return [next(free) if tracker_id is None else int(tracker_id) for tracker_id in given]


def _next_id(next_id: int, ids: Sequence[int]) -> int:
    return max([next_id, *(tracker_id + 1 for tracker_id in ids)])


def _find(stream: _Stream, tracker_id: int) -> _Object:
    if tracker_id not in stream.objects:
        known = ", ".join(map(str, stream.objects)) or "none"
        raise ValueError(f"there is no object {tracker_id}; those that are followed: {known}")
    return stream.objects[tracker_id]
