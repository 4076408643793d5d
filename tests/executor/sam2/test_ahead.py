"""What is announced is encoded meanwhile, once, and what is found is the same."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import numpy as np
import pytest
import torch

from sam2_blocks.executor import load
from sam2_blocks.executor.sam2 import encode
from sam2_blocks.executor.sam2 import executor as executor_module
from sam2_blocks.executor.sam2.ahead import FramesAhead, PicturesAhead, frames_ahead
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.strategies.tracking import track_frames
from sam2_blocks.values import Image, PromptSet
from tests.executor.conftest import BACKENDS
from tests.executor.sam2.official_video import load_tracking

HW = (48, 64)
BOXES = [[4, 4, 20, 20], [30, 10, 50, 40], [8, 24, 24, 44]]
LOGIT_TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=BACKENDS)
def executor(request, tmp_path_factory) -> Sam2Executor:
    """Of two cores, whatever this machine has."""
    cores = torch.get_num_threads()
    torch.set_num_threads(2)
    loaded = load_tracking("nano", tmp_path_factory.mktemp("nano"), backend=request.param)
    torch.set_num_threads(cores)
    return loaded


def frame(number: int) -> Image:
    pixels = np.random.default_rng(number).integers(0, 255, (*HW, 3), np.uint8)
    return Image(pixels, id=f"frame {number}")


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """Ids of the frames that are encoded in threads of their own."""
    plain, ids = executor_module.embed_frame, []

    def embed_frame(model, image, *, key, encoder=None):
        ids.extend([image.id] * (encoder is not None))
        return plain(model, image, key=key, encoder=encoder)

    monkeypatch.setattr(executor_module, "embed_frame", embed_frame)
    return ids


@pytest.mark.parametrize("objects", [1, 3])
def test_the_tracks_are_those_of_one_frame_after_the_other(executor, objects, encoded):
    frames, prompts = [frame(number) for number in range(12)], PromptSet.from_boxes(BOXES[:objects])
    with executor.track() as session:
        expected = [
            session.step(image, prompts if not n else None) for n, image in enumerate(frames)
        ]
    assert encoded == []
    with executor.track() as session:
        found = list(track_frames(session, iter(frames), prompts))
    assert sorted(encoded) == sorted(image.id for image in frames[2:])  # two at a time
    for one, other in zip(expected, found, strict=True):
        assert one.tracker_id.tolist() == other.tracker_id.tolist()
        assert one.state == other.state
        errors = np.abs(one.prediction.low_res_logits - other.prediction.low_res_logits)
        assert errors.max() <= LOGIT_TOLERANCE
    assert np.ptp(found[-1].prediction.low_res_logits) > 100 * LOGIT_TOLERANCE


def test_nothing_is_encoded_before_something_is_followed(executor, encoded):
    with executor.track() as session:
        session.expect(frame(0))
        session.step(frame(0))
    assert encoded == []


def test_a_frame_is_encoded_once_and_the_oldest_are_forgotten(executor, encoded):
    first, *others = (frame(number) for number in range(6))
    with executor.track() as session:
        session.step(first, PromptSet.from_boxes(BOXES[:1]))
        for image in others:
            session.expect(image)
            session.expect(image)
        assert len(session._ahead._coming) == session.ahead + 1 == 3
        for image in others:  # two of them are not awaited any more
            session.step(image)
        assert session._ahead._coming == {}
    assert len(encoded) == len(set(encoded))


@pytest.mark.parametrize("end", ["reset", "close"])
def test_frames_are_not_kept(executor, end):
    image = frame(1)
    alive = weakref.ref(image.pixels)
    session = executor.track()
    session.step(frame(0), PromptSet.from_boxes(BOXES[:1]))
    session.expect(image)
    session._ahead._coming[id(image)][1].result()
    getattr(session, end)()
    del image
    gc.collect()
    assert alive() is None


def test_an_error_is_that_of_the_frame(executor, monkeypatch):
    with executor.track() as session:
        session.step(frame(0), PromptSet.from_boxes(BOXES[:1]))
        bad, good = frame(1), frame(2)
        with monkeypatch.context() as patch:
            patch.setattr(session._ahead, "_encode", lambda image: 1 / 0)
            session.expect(bad)
            with pytest.raises(ZeroDivisionError):
                session.step(bad)
        session.expect(good)
        assert session.step(good).tracker_id.tolist() == [1]


def test_a_closed_session_expects_nothing(executor):
    session = executor.track()
    session.close()
    with pytest.raises(ValueError, match="this session is closed"):
        session.expect(frame(0))


def test_where_it_saves_no_time_nothing_is_done(executor, encoded):
    ahead = FramesAhead(lambda: pytest.fail("prepared"), None, most=3)
    ahead.expect(frame(0))
    assert ahead.most == 0
    assert ahead.take(frame(0)) is None
    with executor.track(cache_frames=True) as session:
        session.step(frame(0), PromptSet.from_boxes(BOXES[:1]))
        session.expect(frame(1))
        assert session.ahead == 0
    assert encoded == []


@pytest.mark.parametrize(
    ("cores", "batch", "most"),
    [(1, 16, 0), (2, 16, 2), (4, 16, 4), (4, 13, 3), (4, 3, 0), (5, 16, 0)],
)
def test_how_many_frames_are_worth_it(cores, batch, most):
    assert frames_ahead(cores, batch) == most


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_waits_for_no_thread_of_its_parent(executor):
    with executor.track() as session:
        session.step(frame(0), PromptSet.from_boxes(BOXES[:1]))
        image = frame(1)
        session.expect(image)
        child = os.fork()
        if not child:
            os._exit(len(session.step(image).tracker_id))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 1
        assert session.step(image).tracker_id.tolist() == [1]


@pytest.fixture
def pictures_executor() -> Sam2Executor:
    """Of two cores and with a cache, whatever this machine has."""
    cores = torch.get_num_threads()
    torch.set_num_threads(2)
    loaded = load("nano", device="cpu", backend="torch")
    torch.set_num_threads(cores)
    return loaded


@pytest.fixture
def encodings(monkeypatch) -> list[int]:
    """How many pictures each call of the encoder had."""
    plain, counts = encode.encode_batch, []

    def encode_batch(model, batch, encoder=None):
        counts.append(len(batch))
        return plain(model, batch, encoder)

    monkeypatch.setattr(encode, "encode_batch", encode_batch)
    return counts


def levels_of(executor: Sam2Executor, images: list[Image]) -> list[torch.Tensor]:
    found = executor.embed(images)
    assert [embedding.image_id for embedding in found] == [image.id for image in images]
    return [level for one in found for level in (one.image_embed, *one.high_res_feats)]


@pytest.mark.parametrize("expected", [1, 3])
def test_the_embedding_of_a_picture_is_the_same_to_the_last_bit(
    pictures_executor, encodings, expected
):
    images = [frame(number) for number in range(3)]
    plain = levels_of(load("nano", device="cpu", backend="torch"), images)
    encodings.clear()
    for image in images[:expected]:
        pictures_executor.expect(image)
        pictures_executor.expect(image)
    found = levels_of(pictures_executor, images)
    assert all(torch.equal(*pair) for pair in zip(found, plain, strict=True))
    assert encodings == [1, 1, 1]
    stats = pictures_executor.cache_stats()
    assert (stats.hits, stats.misses) == (0, 3)


def test_a_picture_that_is_known_is_not_encoded_ahead(pictures_executor, encodings):
    images = [frame(number) for number in range(2)]
    pictures_executor.embed(images)
    for image in images:
        pictures_executor.expect(image)
    pictures_executor.embed(images)
    assert encodings == [1, 1]
    assert pictures_executor.cache_stats().hits == 2


def test_what_fails_ahead_is_encoded_when_it_is_asked_for(pictures_executor, monkeypatch):
    images = [frame(number) for number in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(encode, "embedding_key", lambda *_: 1 / 0)
        for image in images:
            pictures_executor.expect(image)
        wait_for(pictures_executor._ahead)
    assert len(pictures_executor.embed(images)) == 2


def test_nothing_is_announced_to_a_network_whose_pictures_are_large(
    pictures_executor, encodings, monkeypatch
):
    monkeypatch.setattr(encode, "batch_size", lambda model: 3)
    pictures_executor.expect(frame(0))
    assert pictures_executor._ahead._coming == {}
    assert encodings == []


def wait_for(ahead: PicturesAhead) -> None:
    for _, future in list(ahead._coming.values()):
        future.exception()


def test_too_many_pictures_are_not_encoded_ahead():
    ahead = PicturesAhead(lambda image: image.id, most=2)
    images = [frame(number) for number in range(3)]
    for image in images:
        ahead.expect(image)
    assert [ahead.take(image) for image in images] == ["frame 0", "frame 1", None]
    assert ahead.take(images[0]) is None


def test_a_picture_that_nobody_gives_is_not_waited_for():
    begin = threading.Event()
    ahead = PicturesAhead(lambda image: begin.wait(60) and image.id, most=1)
    image = frame(0)
    pixels = weakref.ref(image.pixels)
    ahead.expect(image)
    begin.set()
    wait_for(ahead)
    del image
    gc.collect()
    assert pixels() is None
    other = frame(1)
    ahead.expect(other)
    assert ahead.take(other) == "frame 1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_encodes_what_its_parent_has_announced(pictures_executor):
    images = [frame(number) for number in range(2)]
    for image in images:
        pictures_executor.expect(image)
    child = os.fork()
    if not child:
        os._exit(len(pictures_executor.embed(images)))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 2
    assert len(pictures_executor.embed(images)) == 2


def test_a_picture_that_is_gone_before_its_turn_is_not_encoded():
    begin, encoded = threading.Event(), []

    def encode(image):
        begin.wait(60)
        encoded.append(image.id)

    ahead = PicturesAhead(encode, most=64)
    images = [frame(number) for number in range(torch.get_num_threads() + 8)]
    for image in images:
        ahead.expect(image)
    del image
    images.clear()
    gc.collect()
    begin.set()
    last = frame(99)
    ahead.expect(last)
    ahead.take(last)
    assert encoded[-1] == "frame 99"
    assert len(encoded) <= torch.get_num_threads() + 1


def test_a_picture_whose_encoding_failed_is_not_kept():
    ahead = PicturesAhead(lambda image: 1 / 0, most=1)
    image = frame(0)
    gone = weakref.ref(image)
    ahead.expect(image)
    wait_for(ahead)
    del image
    gc.collect()
    assert gone() is None
    assert ahead._coming == {}


def test_nothing_is_left_at_a_picture_that_was_given():
    ahead, image = PicturesAhead(lambda image: image.id, most=1), frame(0)
    for _ in range(3):
        ahead.expect(image)
        assert ahead.take(image) == "frame 0"
    gc.collect()
    assert weakref.getweakrefcount(image) == 0


def test_pictures_that_are_not_given_in_the_next_micro_batch_are_let_go_of():
    ahead = PicturesAhead(lambda image: image.id, most=2)
    images = [frame(number) for number in range(4)]
    ahead.expect(images[0])
    ahead.forget_unused()
    ahead.expect(images[1])
    ahead.forget_unused()
    assert ahead.take(images[0]) is None
    for image in images[2:]:
        ahead.expect(image)
    assert [ahead.take(image) for image in images[1:]] == ["frame 1", "frame 2", None]


def test_an_executor_lets_go_of_what_was_announced_for_nothing(pictures_executor):
    image = frame(0)
    pictures_executor.expect(image)
    for _ in range(2):
        pictures_executor.forget_unused()
    assert pictures_executor._ahead._coming == {}


def test_a_picture_that_comes_alone_has_all_cores_even_if_it_was_announced(
    pictures_executor, encodings, monkeypatch
):
    alone = []
    plain = executor_module.embed_images

    def embed_images(*given, **options):
        alone.append(options["alone"])
        return plain(*given, **options)

    monkeypatch.setattr(executor_module, "embed_images", embed_images)
    image = frame(0)
    pictures_executor.expect(image)
    found = levels_of(pictures_executor, [image])
    assert alone == [True]
    assert encodings == [1, 1]
    other = load("nano", device="cpu", backend="torch")
    assert all(torch.equal(*pair) for pair in zip(found, levels_of(other, [image]), strict=True))
