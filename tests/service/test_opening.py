from __future__ import annotations

import asyncio
import threading

import pytest

from sam2_blocks.requests import InferenceRequestImage
from sam2_blocks.service import ServiceSettings
from sam2_blocks.service import opening as opening_module
from sam2_blocks.service.errors import ImageRefusedError, TooLargeError
from sam2_blocks.service.opening import ImageOpener
from sam2_blocks.service.threads import Workers
from tests.service.conftest import as_request, picture

SENT = InferenceRequestImage(**as_request(picture()))
LINKED = InferenceRequestImage(type="url", value="http://example.com/a.png")
FILE = b"the bytes of a file"


@pytest.fixture
def make_opener():
    """``make_opener(setting=value)``."""
    openers = []
    with Workers(2, "test") as workers:

        def make(**settings):
            openers.append(ImageOpener(ServiceSettings(**settings), workers))
            return openers[-1]

        yield make
        for opener in openers:
            opener.close()


@pytest.fixture
def slow_server(monkeypatch):
    """Downloads that end only once this is set."""
    answer = threading.Event()

    def fetch(url, limits):
        assert answer.wait(120)
        return FILE

    monkeypatch.setattr("sam2_blocks.service.images.fetch", fetch)
    yield answer
    answer.set()


async def open_one(opener, given, field="image"):
    async with opener.opened({field: given}) as images:
        return images[field]


def test_an_image_is_named_like_its_field(make_opener):
    image = asyncio.run(open_one(make_opener(), SENT, "inputs.left"))
    assert (image.id, image.hw) == ("inputs.left", (60, 80))


def test_a_slow_server_holds_up_no_image_that_was_sent(make_opener, slow_server):
    async def both():
        opener = make_opener(max_open_images=1)
        slow = [asyncio.create_task(open_one(opener, LINKED)) for _ in range(50)]
        await asyncio.sleep(0)
        assert (await asyncio.wait_for(open_one(opener, SENT), 120)).hw == (60, 80)
        assert not any(task.done() for task in slow)
        slow_server.set()
        return await asyncio.gather(*slow, return_exceptions=True)

    errors = asyncio.run(both())
    assert all(isinstance(error, ImageRefusedError) for error in errors)  # it is no picture


def test_few_requests_at_a_time_hold_files_that_wait_for_a_place(
    make_opener, slow_server, monkeypatch
):
    monkeypatch.setattr(opening_module, "FETCHERS", 2)
    slow_server.set()

    async def several():
        opener = make_opener(max_open_images=1)
        fetched, fetch = 0, opener._fetch

        async def counted(given):
            nonlocal fetched
            fetched += 1
            return await fetch(given)

        opener._fetch = counted
        async with opener.opened({"image": SENT}):  # the only place
            waiting = [asyncio.create_task(open_one(opener, LINKED)) for _ in range(5)]
            while not opener._places.waiting:
                await asyncio.sleep(0)
            held = fetched
        await asyncio.gather(*waiting, return_exceptions=True)
        return held, fetched

    held, fetched = asyncio.run(several())
    assert (held <= 2, fetched) == (True, 5)


def test_the_files_of_one_request_are_bounded_together(make_opener, slow_server):
    slow_server.set()
    opener = make_opener(max_body_bytes=2 * len(FILE))

    async def open_three():
        async with opener.opened({"a": LINKED, "b": SENT, "c": LINKED, "d": LINKED}):
            pass

    with pytest.raises(TooLargeError, match="d: the files have more than 38 bytes together"):
        asyncio.run(open_three())


def test_places_and_bytes_are_held_until_decoding_has_ended(make_opener, monkeypatch):
    entered, gate = threading.Event(), threading.Event()

    async def cancel():
        opener = make_opener(max_open_images=1)

        def decode(process, content, max_pixels):
            entered.set()
            assert gate.wait(120)

        monkeypatch.setattr("sam2_blocks.service.decoders._Process.decode", decode)
        opening = asyncio.create_task(open_one(opener, SENT))
        await asyncio.to_thread(entered.wait, 120)
        opening.cancel()
        await asyncio.sleep(0)
        held = opener._places.free, opener._bytes.size - opener._bytes.free
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
        return held, (opener._places.free, opener._bytes.size - opener._bytes.free)

    assert asyncio.run(cancel()) == ((0, 60 * 80 * 3), (1, 0))


def test_pixels_wait_for_room_and_then_come(make_opener):
    nbytes = 60 * 80 * 3

    async def several():
        opener = make_opener(max_open_bytes=nbytes)
        async with opener.opened({"image": SENT}):
            waiting = asyncio.create_task(open_one(opener, SENT))
            while not opener._bytes.waiting:
                await asyncio.sleep(0.01)
            assert not waiting.done()
        return (await asyncio.wait_for(waiting, 120)).hw

    assert asyncio.run(several()) == (60, 80)


def test_more_pixels_than_there_is_room_for_are_refused(make_opener):
    async def two():
        opener = make_opener(max_open_bytes=2 * 60 * 80 * 3 - 1)
        async with opener.opened({"a": SENT, "b": SENT}):
            pass

    with pytest.raises(TooLargeError, match="a, b: the pixels take 28800 bytes, the limit is"):
        asyncio.run(two())


@pytest.mark.parametrize(("large_bytes", "times"), [(0, 1), (10**9, 0)], ids=["large", "small"])
def test_memory_is_given_back_once_large_pictures_are_let_go_of(
    make_opener, monkeypatch, large_bytes, times
):
    given_back = []
    monkeypatch.setattr(opening_module, "LARGE_BYTES", large_bytes)
    monkeypatch.setattr(opening_module, "give_back", lambda: given_back.append(len(held)))
    opener, held = make_opener(), []

    async def open_two():
        loop = asyncio.get_running_loop()
        now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: now)  # it stands still while both are opened
        for _ in range(2):
            async with opener.opened({"image": SENT}):
                held.append(1)
        assert not given_back
        now += opening_module.TIDY_AFTER_S
        for _ in range(2):  # the loop looks at its clock, then calls
            await asyncio.sleep(0)
        assert opener._tidying is None

    asyncio.run(open_two())
    opener._workers.shutdown()
    assert given_back == [2] * times
