"""A session's manners: ids, states, bounds, and what a failure leaves behind."""

from __future__ import annotations

import gc
import os
import weakref

import numpy as np
import pytest
import supervision as sv

from sam2_blocks.executor import load
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.frames import frame_key
from sam2_blocks.executor.sam2.memory import kept_bytes, memory_bounds
from sam2_blocks.executors import Tracker
from sam2_blocks.masks.rle import mask_to_rle
from sam2_blocks.options import TrackSettings
from sam2_blocks.strategies.tracking import track_frames
from sam2_blocks.values import Image, Prompt, PromptSet
from tests.executor.conftest import BACKENDS, NEEDS_OPENVINO
from tests.executor.sam2.official_video import load_tracking

HW = (48, 64)
BOXES = [[4, 4, 20, 20], [30, 10, 50, 40], [8, 24, 24, 44]]


@pytest.fixture(scope="module", params=BACKENDS)
def executor(request, tmp_path_factory) -> Sam2Executor:
    return load_tracking("nano", tmp_path_factory.mktemp("nano"), backend=request.param)


@pytest.fixture
def session(executor):
    with executor.track() as session:
        yield session


def frame(number: int, hw: tuple[int, int] = HW) -> Image:
    pixels = np.random.default_rng(number).integers(0, 255, (*hw, 3), np.uint8)
    return Image(pixels, id=f"frame {number}")


def boxes(*rows: int) -> PromptSet:
    return PromptSet.from_boxes([BOXES[row] for row in rows])


def test_it_is_a_tracker(executor):
    assert isinstance(executor, Tracker)


@pytest.mark.parametrize(
    ("dtype", "backend"),
    [
        ("float16", "torch"),
        ("bfloat16", "torch"),
        pytest.param("bfloat16", "openvino", marks=NEEDS_OPENVINO),
    ],
)
def test_half_precision_follows_too(dtype, backend):
    with load("nano", device="cpu", dtype=dtype, backend=backend).track() as session:
        prompts, frames = boxes(0, 1), map(frame, range(3))
        found = list(track_frames(session, frames, prompts))
    assert [tracks.tracker_id.tolist() for tracks in found] == [[1, 2]] * 3
    assert np.isfinite(found[-1].prediction.low_res_logits).all()


def test_ids_are_counted_from_one_and_never_given_twice(session):
    assert session.step(frame(0), boxes(0, 1)).tracker_id.tolist() == [1, 2]
    session.remove(2)
    assert session.step(frame(1), boxes(2)).tracker_id.tolist() == [1, 3]
    session.reset()
    assert session.step(frame(2), boxes(0)).tracker_id.tolist() == [4]


def test_ids_that_are_given_are_kept(session):
    tracks = session.step(frame(0), boxes(0, 1, 2), [None, 7, 0])
    assert tracks.tracker_id.tolist() == [8, 7, 0]
    assert tracks.tracker_id.dtype == np.int64
    assert session.step(frame(1), boxes(0)).tracker_id.tolist() == [8, 7, 0, 9]


def test_a_known_object_keeps_its_place_and_is_not_new_again(session):
    assert session.step(frame(0), boxes(0, 1)).state == ("new", "new")
    tracks = session.step(frame(1), boxes(2), [1])
    assert tracks.tracker_id.tolist() == [1, 2]
    assert "new" not in tracks.state


def test_states_follow_the_score(session, executor, monkeypatch):
    score = executor.model.network.sam_mask_decoder.pred_obj_score_head.layers[-1]
    session.step(frame(0), boxes(0))
    for bias, state in ((20.0, "tracked"), (-20.0, "lost"), (20.0, "tracked")):
        monkeypatch.setitem(score._parameters, "bias", score.bias * 0 + bias)
        tracks = session.step(frame(1))
        assert tracks.state == (state,)
        assert (tracks.object_score > 0) == (state == "tracked")
        assert tracks.object_score.dtype == np.float32
        if state == "lost":
            assert tracks.prediction.rles[0].counts.tolist() == [48 * 64]


def test_frames_before_the_first_prompt_cost_nothing(executor, monkeypatch):
    monkeypatch.setattr(executor, "_embed_frame", None)
    with executor.track() as session:
        for number in range(50):
            tracks = session.step(frame(number))
        assert len(tracks) == 0
        assert tracks.prediction.image_hw == HW
        assert tracks.tracker_id.shape == tracks.object_score.shape == (0,)


def test_memory_stays_within_its_stated_bound(session, executor):
    network = executor.model.network
    bound = kept_bytes(network, memory_bounds(network, 4, None))
    held = []
    for number in range(24):
        given = boxes(0) if number % 3 == 0 else None
        session.step(frame(number), given, [1] if given else None)
        held.append(session.nbytes)
    assert max(held) <= bound
    assert held[-1] == held[-4]


def test_frames_are_not_kept(session):
    images = [frame(number) for number in range(3)]
    alive = [weakref.ref(image.pixels) for image in images]
    for image in images:
        session.step(image, boxes(0))
    del images, image
    gc.collect()
    assert [reference() for reference in alive] == [None] * 3


def test_fifty_frames_without_prompts(session):
    """The object stays, and what is remembered of it grows no more once all bounds are reached."""
    session.step(frame(0), boxes(0))
    held = []
    for number in range(1, 51):
        assert session.step(frame(number)).tracker_id.tolist() == [1]
        held.append(session.nbytes)
    assert len(set(held[15:])) == 1


def test_an_object_that_left_comes_back_by_a_prompt(session, executor, monkeypatch):
    """Prompted where it is not seen it is remembered by that frame; it keeps its id and place."""
    score = executor.model.network.sam_mask_decoder.pred_obj_score_head.layers[-1]
    session.step(frame(0), boxes(0, 1))
    with monkeypatch.context() as patch:
        patch.setitem(score._parameters, "bias", score.bias * 0 - 20.0)
        for number in range(1, 4):
            assert session.step(frame(number)).state == ("lost", "lost")
        assert session.step(frame(4), boxes(2), [2]).state == ("lost", "lost")
    monkeypatch.setitem(score._parameters, "bias", score.bias * 0 + 20.0)
    tracks = session.step(frame(5), boxes(2), [1])
    assert tracks.tracker_id.tolist() == [1, 2]
    assert tracks.state == ("tracked", "tracked")
    assert len(session._stream.objects[1].memory.prompted) == 2


def test_prompts_for_an_object_that_was_removed_start_it_anew(session):
    session.step(frame(0), boxes(0, 1))
    session.remove(1)
    tracks = session.step(frame(1), boxes(2), [1])
    assert tracks.tracker_id.tolist() == [2, 1]
    assert tracks.state[1] == "new"


@pytest.mark.parametrize("at", range(6))
def test_a_clip_that_is_interrupted_at_any_frame_leaves_nothing_behind(executor, at):
    def follow(session) -> None:
        with session:
            for number in range(6):
                if number == at:
                    raise KeyboardInterrupt
                session.step(frame(number), boxes(0) if number == 2 else None)

    session = executor.track()
    with pytest.raises(KeyboardInterrupt):
        follow(session)
    assert session.nbytes == 0
    assert session.tracker_ids == ()


def test_a_hundred_objects(session):
    rng = np.random.default_rng(0)
    corners = rng.uniform(1, 47, (100, 2, 2))
    given = PromptSet.from_boxes(np.concatenate([corners.min(1), corners.max(1) + 1], 1))
    session.step(frame(0), given)
    tracks = session.step(frame(1))
    assert tracks.tracker_id.tolist() == list(range(1, 101))
    assert len(tracks.prediction) == len(tracks.state) == 100


def test_a_clip_of_one_frame(session):
    tracks = session.step(frame(0), [mask_to_rle(np.eye(*HW, dtype=bool))])
    assert tracks.state == ("new",)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("part", ["follow", "start", "remember"])
def test_a_step_that_fails_changes_nothing(executor, monkeypatch, part, error):
    def run(*, failing: bool) -> list[np.ndarray]:
        logits = []
        with executor.track() as session:
            for number in range(5):
                given = boxes(number) if number in (0, 2) else None
                if failing:
                    fail(session, number, given or boxes(1))
                logits.append(session.step(frame(number), given).prediction.low_res_logits)
        return logits

    def fail(session, number: int, given: PromptSet) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(executor._follower, part, raise_error)
            with pytest.raises(error):
                session.step(frame(number), given)

    def raise_error(*_: object, **__: object) -> None:
        raise error

    for once, again in zip(run(failing=False), run(failing=True), strict=True):
        assert np.array_equal(once, again)


def test_two_sessions_do_not_meet(executor):
    def run(numbers: list[int], session) -> list[np.ndarray]:
        return [
            session.step(frame(n), boxes(0) if n == numbers[0] else None).prediction.low_res_logits
            for n in numbers
        ]

    with executor.track() as one, executor.track() as two:
        mixed: dict[int, list[np.ndarray]] = {0: [], 10: []}
        for k in range(4):
            for base, session in ((0, one), (10, two)):
                given = boxes(0) if k == 0 else None
                mixed[base].append(session.step(frame(base + k), given).prediction.low_res_logits)
    with executor.track() as alone:
        for expected, found in zip(run([10, 11, 12, 13], alone), mixed[10], strict=True):
            assert np.array_equal(expected, found)


def test_embeddings_of_frames_and_pictures_are_kept_apart(executor):
    image = frame(0)
    picture = executor.embed([image])[0]
    with executor.track(cache_frames=True) as session:
        session.step(image, boxes(0))
        misses = executor.cache_stats().misses
        session.step(image)
        assert executor.cache_stats().misses == misses
    found = executor.find(frame_key(image, executor.model))
    assert found is not None
    assert found.key != picture.key
    with pytest.raises(ValueError, match="Embed the image with this executor"):
        executor.segment([(found, boxes(0))])


def test_frames_of_a_stream_push_nothing_out_of_the_cache(session, executor):
    entries = executor.cache_stats().entries
    session.step(frame(77), boxes(0))
    assert executor.cache_stats().entries == entries


def test_a_frame_of_another_size(session):
    session.step(frame(0), boxes(0))
    message = "frame 'frame 1' is 40x32, but the frames before it are 64x48. Resize it, or begin"
    with pytest.raises(ValueError, match=message):
        session.step(frame(1, (32, 40)))
    session.reset()
    assert len(session.step(frame(1, (32, 40)), boxes(0))) == 1


@pytest.mark.parametrize(
    ("prompts", "ids", "message"),
    [
        (boxes(0, 1), [1], "tracker_ids wants one id a prompt, got 1 for 2 prompts"),
        (boxes(0, 1), [3, 3], r"must be different and not negative, got \[3, 3\]"),
        (boxes(0), [-1], r"must be different and not negative, got \[-1\]"),
        ([Prompt()], None, "frame 'frame 0': prompt 0: is empty; give a box"),
        (
            [*boxes(0).prompts, mask_to_rle(np.ones((4, 4), bool))],
            None,
            r"prompt 1: a mask of size \(4, 4\) is not of this frame, \(48, 64\)",
        ),
    ],
)
def test_prompts_that_mean_nothing(session, prompts, ids, message):
    with pytest.raises(ValueError, match=message):
        session.step(frame(0), prompts, ids)
    assert session.tracker_ids == ()


def test_whatever_stands_for_prompts_starts_objects(session):
    detections = sv.Detections(np.array(BOXES[2:], float))
    for prompts in (BOXES[:1], [{"box_xyxy": BOXES[1]}], detections):
        session.step(frame(0), prompts)
    assert session.tracker_ids == (1, 2, 3)
    session.correct(1, boxes(0))
    session.correct(1, [{"point_coords": [[9, 9]]}])
    session.correct(1, mask_to_rle(np.ones(HW, bool)))
    with pytest.raises(ValueError, match="wants one prompt, for one object, got 2"):
        session.correct(1, boxes(0, 1))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("boxes", "wants prompts: a PromptSet, .*; got str"),
        ([mask_to_rle(np.ones(HW, bool)), BOXES[0]], "beside masks wants Prompts, got list"),
    ],
)
def test_what_is_no_prompt(session, prompts, message):
    with pytest.raises(TypeError, match=message):
        session.step(frame(0), prompts)


@pytest.mark.parametrize("call", ["remove", "correct"])
def test_an_object_that_is_not_followed(session, call):
    session.step(frame(0), boxes(0, 1))
    arguments = (5,) if call == "remove" else (5, boxes(0).prompts[0])
    with pytest.raises(ValueError, match="there is no object 5; those that are followed: 1, 2"):
        getattr(session, call)(*arguments)


def test_a_correction_of_the_first_frame_refines_it(session):
    session.step(frame(0), boxes(0))
    point = Prompt(point_coords=np.array([[9, 9]], np.float32), point_labels=np.ones(1, np.int32))
    tracks = session.correct(1, point)
    assert tracks.state == ("new",)
    assert len(session._stream.objects[1].memory.prompted) == 1


def test_prompting_after_a_step_is_prompting_with_it(executor):
    def run(*, later: bool) -> list[np.ndarray]:
        with executor.track() as session:
            session.step(frame(0), boxes(0, 1))
            session.step(frame(1), None if later else boxes(2, 0), None if later else [2, None])
            if later:
                tracks = session.prompt(boxes(2, 0), [2, None])
                assert tracks.tracker_id.tolist() == [1, 2, 3]
                assert tracks.state == ("tracked", "tracked", "new")
            return [session.step(frame(n)).prediction.low_res_logits for n in (2, 3)]

    for with_it, after_it in zip(run(later=False), run(later=True), strict=True):
        assert np.array_equal(with_it, after_it)


def test_prompting_a_frame_nobody_looked_at(session):
    session.step(frame(0))
    with pytest.raises(ValueError, match=r"so it was not encoded; give the prompts to step\(\)"):
        session.prompt(boxes(0))
    session.step(frame(1), boxes(0))
    session.remove(1)
    session.step(frame(2))
    with pytest.raises(ValueError, match="nothing was followed on the last frame"):
        session.prompt(boxes(0))


def test_a_closed_session(executor):
    with executor.track() as session:
        session.step(frame(0), boxes(0))
    assert session.nbytes == 0
    with pytest.raises(ValueError, match=r"this session is closed; begin another"):
        session.step(frame(1))


def test_settings_beyond_the_model(executor):
    with pytest.raises(ValueError, match="memory_frames must be 1 to 7"):
        executor.track(TrackSettings(memory_frames=9))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_goes_on_with_its_own(session):
    session.step(frame(0), boxes(1))
    with session._lock.held():  # as if a thread was at work when the process forked
        child = os.fork()
        if not child:
            os._exit(len(session.step(frame(1)).tracker_id))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert session.step(frame(1)).tracker_id.tolist() == [1]
