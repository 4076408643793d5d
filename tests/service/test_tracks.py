from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.prompts import PromptSet
from sam2_blocks.service.admission import Caller
from sam2_blocks.service.errors import (
    BusyError,
    ImageRefusedError,
    RequestError,
    TooLargeError,
    TrackConflictError,
    UnknownModelError,
    UnknownTrackError,
)
from sam2_blocks.service.tracks import TrackSessions
from sam2_blocks.testing import FakeExecutor, FakeTrackSession
from sam2_blocks.track_requests import TrackFramesRequest, TrackRequest
from tests.service.conftest import as_request, box, fresh, picture, point

FRAMES = [picture(seed) for seed in range(3)]
BOX = box(10, 10, 60, 50)
BAD = {"type": "base64", "value": "bm8gcGljdHVyZQ=="}
FRAME = {"image": as_request(FRAMES[0])}
START = {**FRAME, "prompts": [BOX], "format": "rle"}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class GatedSession(FakeTrackSession):
    """Takes a frame only while its gate is open."""

    def __init__(self, settings):
        super().__init__(settings)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def step(self, *given):
        self.entered.set()
        assert self.gate.wait(120)
        return super().step(*given)


class Gated(FakeExecutor):
    """Remembers its sessions."""

    def __init__(self, made=GatedSession):
        super().__init__("nano")
        self.sessions = []
        self._made = made

    def track(self, settings):
        self.sessions.append(self._made(settings))
        return self.sessions[-1]


@pytest.fixture
def make_tracks(make_service):
    def make(executor=None, clock=None, **settings):
        service = make_service(executor or Gated(), **settings)
        return TrackSessions(service, clock or Clock())

    return make


async def begin(tracks, client="", **fields):
    return await tracks.begin(TrackRequest.model_validate(fields), Caller(client))


async def take(tracks, session_id, client="", **fields):
    request = TrackFramesRequest.model_validate(fields)
    return await tracks.take(session_id, request, Caller(client))


def masks(frame):
    return [rle_to_mask(coco_to_rle(row.masks)) for row in frame.predictions]


def run(conversation):
    return asyncio.run(conversation)


def test_a_session_gives_the_tracks_of_the_library(make_tracks, nano_executor):
    with nano_executor.track() as session:
        wanted = [session.step(FRAMES[0], PromptSet.from_boxes([[10, 10, 60, 50]]))]
        wanted.append(session.step(FRAMES[1]))
        wanted.append(session.step(FRAMES[2], PromptSet.from_points([[40, 30]])))

    async def talk():
        tracks = make_tracks(fresh(nano_executor))
        first = await begin(tracks, **START)
        rest = [
            {"image": as_request(FRAMES[1])},
            {"image": as_request(FRAMES[2]), "prompts": [{"points": [point(40, 30)]}]},
        ]
        return [*first.frames, *(await take(tracks, first.session_id, frames=rest)).frames]

    for index, (frame, expected) in enumerate(zip(run(talk()), wanted, strict=True)):
        assert frame.frame_index == index
        rows = frame.predictions
        assert [row.tracker_id for row in rows] == expected.tracker_id.tolist()
        assert [row.object_score for row in rows] == expected.object_score.tolist()
        assert [row.state for row in rows] == list(expected.state)
        assert [row.confidence for row in rows] == expected.prediction.iou_prediction.tolist()
        for mask, rle in zip(masks(frame), expected.prediction.rles, strict=True):
            assert (mask == rle_to_mask(rle)).all()


def test_objects_are_mended_and_forgotten_on_the_frame_before(make_tracks):
    async def talk():
        tracks = make_tracks()
        session = (await begin(tracks, **{**START, "prompts": [BOX, BOX]})).session_id
        correction = {"tracker_id": 2, **box(2, 2, 6, 6)}
        answer = await take(tracks, session, corrections=[correction], removals=[1])
        return answer, tracks.show(session)

    answer, shown = run(talk())
    [frame] = answer.frames
    assert [row.tracker_id for row in frame.predictions] == [2]
    assert masks(frame)[0].sum() == 16
    assert (frame.frame_index, shown.frames, shown.tracker_ids) == (0, 1, [2])


def test_a_bad_picture_midway_is_one_error_and_the_session_goes_on(make_tracks):
    async def talk():
        tracks = make_tracks()
        session = (await begin(tracks, **START)).session_id
        frames = [FRAME, {"image": BAD}, {**FRAME, "removals": [9]}, FRAME]
        return await take(tracks, session, frames=frames), tracks.show(session)

    answer, shown = run(talk())
    assert [frame.frame_index for frame in answer.frames] == [1, None, None, 2]
    errors = [frame.error for frame in answer.frames]
    assert (errors[0], errors[3]) == (None, None)
    assert errors[1].status == 400
    assert errors[1].message.startswith("frames[1].image: ")
    assert (errors[2].status, shown.frames) == (422, 3)
    assert errors[2].message == ("frames[2].removals: no object 9 is followed. Those that are: 1.")
    assert "error" not in answer.frames[0].model_dump()


def test_a_request_whose_frames_are_all_bad_is_refused(make_tracks):
    async def talk():
        tracks = make_tracks()
        session = (await begin(tracks, **START)).session_id
        with pytest.raises(ImageRefusedError, match=r"^image: "):
            await take(tracks, session, image=BAD)
        with pytest.raises(RequestError, match="image: is 30x20, but the frames before it are 80x"):
            await take(tracks, session, image=as_request(picture(hw=(20, 30))))
        return await take(tracks, session, image=FRAME["image"])

    assert run(talk()).frames[0].frame_index == 1


def test_where_no_frame_can_be_taken_no_session_begins(make_tracks):
    executor = Gated()
    tracks = make_tracks(executor)
    with pytest.raises(ImageRefusedError):
        run(begin(tracks, image=BAD))
    assert len(tracks.table) == 0
    assert executor.sessions[0].closed


def test_an_error_of_the_model_leaves_the_session_usable(make_tracks):
    class Failing(FakeTrackSession):
        def step(self, image, *given):
            if not image.pixels.any():
                raise ModelError("out of memory")
            return super().step(image, *given)

    async def talk():
        tracks = make_tracks(Gated(Failing))
        session = (await begin(tracks, **START)).session_id
        black = FRAMES[0].pixels * 0
        with pytest.raises(ModelError, match="out of memory"):
            await take(tracks, session, image={"type": "numpy_object", "value": black})
        return await take(tracks, session, image=FRAME["image"])

    assert run(talk()).frames[0].frame_index == 1


def test_two_requests_at_once_do_not_mix_their_frames(make_tracks):
    executor = Gated()

    async def talk():
        tracks = make_tracks(executor)
        session = (await begin(tracks, **START)).session_id
        executor.sessions[0].gate.clear()
        executor.sessions[0].entered.clear()
        first = asyncio.create_task(take(tracks, session, **FRAME))
        await asyncio.to_thread(executor.sessions[0].entered.wait, 120)
        with pytest.raises(TrackConflictError, match="Send frames one after the other"):
            await take(tracks, session, **FRAME)
        executor.sessions[0].gate.set()
        await first
        return await take(tracks, session, **FRAME)

    assert run(talk()).frames[0].frame_index == 2


def test_who_gives_up_leaves_the_session_usable(make_tracks):
    executor = Gated()

    async def talk():
        tracks = make_tracks(executor)
        session = (await begin(tracks, **START)).session_id
        executor.sessions[0].gate.clear()
        executor.sessions[0].entered.clear()
        asked = asyncio.create_task(take(tracks, session, frames=[FRAME, FRAME]))
        await asyncio.to_thread(executor.sessions[0].entered.wait, 120)
        asked.cancel()
        executor.sessions[0].gate.set()
        with pytest.raises(asyncio.CancelledError):
            await asked
        return tracks.show(session).frames, await take(tracks, session, **FRAME)

    frames, answer = run(talk())
    assert frames == 2  # the one that the model had begun was taken, the other was not
    assert answer.frames[0].frame_index == 2


def test_a_session_that_is_ended_while_it_is_used_is_freed_after_the_frame(make_tracks):
    executor = Gated()

    async def talk():
        tracks = make_tracks(executor)
        session = (await begin(tracks, **START)).session_id
        executor.sessions[0].gate.clear()
        executor.sessions[0].entered.clear()
        asked = asyncio.create_task(take(tracks, session, frames=[FRAME, FRAME]))
        await asyncio.to_thread(executor.sessions[0].entered.wait, 120)
        shown = await tracks.end(session)
        assert not executor.sessions[0].closed
        executor.sessions[0].gate.set()
        with pytest.raises(UnknownTrackError, match="ended before all its frames were taken"):
            await asked
        return shown

    assert run(talk()).frames == 1
    assert executor.sessions[0].closed
    assert len(executor.sessions[0].frames) == 2


def test_sessions_that_nobody_asks_are_freed(make_tracks):
    clock, executor = Clock(), Gated()

    async def talk():
        tracks = make_tracks(executor, clock, track_idle_s=10)
        old = (await begin(tracks, **START)).session_id
        clock.now = 6
        young = (await begin(tracks)).session_id
        clock.now = 11
        await tracks.sweep()
        assert [session.closed for session in executor.sessions] == [True, False]
        with pytest.raises(UnknownTrackError, match="there is no session"):
            await take(tracks, old, **FRAME)
        assert tracks.show(young).expires_in == 5
        await take(tracks, young, **FRAME)
        assert tracks.show(young).expires_in == 10

    run(talk())


def test_a_sweeper_frees_them_without_any_request(make_tracks):
    clock, executor = Clock(), Gated()

    async def talk():
        tracks = make_tracks(executor, clock, track_idle_s=0.01)
        await begin(tracks)
        sweeper = asyncio.create_task(tracks.sweep_for_ever())
        clock.now = 1
        while not executor.sessions[0].closed:
            await asyncio.sleep(0.01)
        sweeper.cancel()

    run(asyncio.wait_for(talk(), 120))


def test_at_the_end_all_are_freed(make_tracks):
    executor = Gated()
    tracks = make_tracks(executor)
    for _ in range(2):
        run(begin(tracks))
    tracks.close()
    assert [session.closed for session in executor.sessions] == [True, True]
    assert len(tracks.table) == 0


def test_a_session_is_its_keys_alone(make_tracks):
    async def talk():
        tracks = make_tracks()
        session = (await begin(tracks, "one", **START)).session_id
        for wrong in (session, "nothing"):
            with pytest.raises(UnknownTrackError, match=f"no session '{wrong}'"):
                await take(tracks, wrong, "two", **FRAME)
            with pytest.raises(UnknownTrackError):
                tracks.show(wrong, "two")
            with pytest.raises(UnknownTrackError):
                await tracks.end(wrong, "two")
        return await take(tracks, session, "one", **FRAME)

    assert run(talk()).frames[0].frame_index == 1


@pytest.mark.parametrize(
    ("settings", "fields", "message"),
    [
        ({"max_request_frames": 1}, {"frames": [FRAME] * 2}, "frames: there are 2, the limit is 1"),
        ({"max_track_frames": 2}, {"frames": [FRAME] * 2}, "has taken 1 frames, the limit is 2"),
        (
            {"max_track_objects": 2},
            {"prompts": [BOX] * 2},
            "prompts: the session would have 3 objects, the limit is 2",
        ),
        ({"max_prompts": 1}, {"prompts": [BOX] * 2}, "prompts: there are 2, the limit is 1"),
        ({"max_points": 1}, {"prompts": [{"points": [point(1, 1)] * 2}]}, "one has 2 points"),
    ],
)
def test_what_is_too_much_is_refused_and_the_session_goes_on(
    make_tracks, settings, fields, message
):
    async def talk():
        tracks = make_tracks(**settings)
        session = (await begin(tracks, **START)).session_id
        with pytest.raises(TooLargeError, match=message):
            await take(tracks, session, **fields)
        return await take(tracks, session, **FRAME)

    assert run(talk()).frames[0].frame_index == 1


def test_an_object_may_take_the_place_of_another(make_tracks):
    async def talk():
        tracks = make_tracks(max_track_objects=1)
        session = (await begin(tracks, **START)).session_id
        await take(tracks, session, prompts=[{**BOX, "tracker_id": 1}])  # no further one
        return await take(tracks, session, **FRAME, removals=[1], prompts=[BOX])

    assert [row.tracker_id for row in run(talk()).frames[0].predictions] == [2]


def test_new_objects_wait_while_all_sessions_remember_as_much_as_they_may(make_tracks):
    class Heavy(FakeTrackSession):
        @property
        def nbytes(self):
            return 10 * len(self.tracker_ids)

    async def talk():
        # An object will be remembered of 4 + 7 frames, so two of them are too many.
        tracks = make_tracks(Gated(Heavy), max_track_bytes=150)
        first = (await begin(tracks, **START)).session_id
        other = (await begin(tracks)).session_id
        with pytest.raises(BusyError, match="prompts: all sessions together hold as many objects"):
            await take(tracks, other, **FRAME, prompts=[BOX])
        await take(tracks, first, **FRAME)
        await tracks.end(first)
        return await take(tracks, other, **FRAME, prompts=[BOX])

    assert run(talk()).frames[0].predictions[0].state == "new"


def test_memory_is_bounded_however_long_the_video(make_tracks, nano_executor):
    async def talk():
        tracks = make_tracks(fresh(nano_executor), max_track_frames=1000)
        session = (await begin(tracks, **START)).session_id
        sizes = []
        for _ in range(22):
            await take(tracks, session, **FRAME)
            sizes.append(tracks.show(session).nbytes)
        return tracks, sizes

    tracks, sizes = run(talk())
    assert len(set(sizes[-4:])) == 1
    [one] = tracks._object_bytes.values()
    assert one < sizes[-1] <= one * (4 + 7)


class Pictures:
    """Embeds and segments, and nothing else."""

    def __init__(self):
        fake = FakeExecutor("nano")
        self.spec, self.embed, self.segment = fake.spec, fake.embed, fake.segment


class OtherMemory(FakeExecutor):
    def track(self, settings):
        raise ModelError("the memory of this model works in another way.")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Pictures(), "the model 'nano' cannot track. Use another one."),
        (OtherMemory("nano"), "the memory of this model works in another way.$"),
    ],
)
def test_a_model_that_cannot_track_says_so(make_tracks, model, message):
    with pytest.raises(RequestError, match=message):
        run(begin(make_tracks(model)))


def test_settings_that_the_model_cannot_have_are_refused(make_tracks, nano_executor):
    with pytest.raises(RequestError, match="memory_frames"):
        run(begin(make_tracks(fresh(nano_executor)), memory_frames=99))


def test_a_model_that_is_not_served_is_unknown(make_tracks):
    with pytest.raises(UnknownModelError, match="there is no model 'other' here"):
        run(begin(make_tracks(), model_id="other"))


def test_polygons_unless_run_lengths_are_asked_for(make_tracks):
    async def talk():
        tracks = make_tracks()
        first = await begin(tracks, **FRAME, prompts=[BOX])
        second = await take(tracks, first.session_id, **FRAME, polygon_form="corners")
        third = await take(tracks, first.session_id, **FRAME, format="rle")
        return [answer.frames[0].predictions[0].masks for answer in (first, second, third)]

    centers, corners, rle = run(talk())
    assert centers == [[[10, 10], [10, 49], [59, 49], [59, 10]]]
    assert np.max(corners) == 60
    assert rle["size"] == list(FRAMES[0].hw)
