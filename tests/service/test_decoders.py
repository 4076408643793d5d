from __future__ import annotations

import asyncio
import io
import signal
import sys

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.formats.images import read_image
from sam2_blocks.service import ServiceSettings
from sam2_blocks.service import decoders as decoders_module
from sam2_blocks.service.decoder import FORMATS
from sam2_blocks.service.decoders import Decoders
from sam2_blocks.service.errors import ImageRefusedError
from tests.service.conftest import picture
from tests.service.hostile import large_tile, of_mode, plain_text

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")


def encoded(mode="RGB", file_format="PNG", hw=(30, 40), **options):
    stream = io.BytesIO()
    Pil.fromarray(picture(0, hw).pixels).convert(mode).save(stream, file_format, **options)
    return stream.getvalue()


PNG = encoded()


@pytest.fixture
def make_decoders():
    """``make_decoders(setting=value)``."""
    made = []

    def make(**settings):
        made.append(Decoders(ServiceSettings(**settings)))
        return made[-1]

    yield make
    for decoders in made:
        decoders.close()


def decode(decoders, content):
    return asyncio.run(decoders.decode(content))


def deep_colours(ending, hw=(30, 40)):
    """Twelve bits in sixteen, which would be nearly black in the upper eight."""
    values = np.random.default_rng(0).integers(0, 4096, (*hw, 3)).astype(np.uint16)
    return cv2.imencode(ending, values)[1].tobytes()


def turned():
    exif = Pil.Exif()
    exif[0x0112] = 6  # a quarter turn
    return encoded("RGB", "JPEG", exif=exif)


def test_what_comes_back_is_what_is_read_in_this_process(make_decoders):
    decoders = make_decoders()
    files = [
        *(PNG, encoded("P", "GIF"), encoded("L", "TIFF"), encoded("RGBA", "WEBP"), turned()),
        *(encoded("1", "BMP"), encoded("CMYK", "JPEG"), encoded("RGB", "PPM", (3, 2000))),
        encoded("RGB", "PNG", (2100, 700)),
        *(deep_colours(ending) for ending in (".png", ".tif")),
        *(encoded("RGB", name) for name in ("AVIF", "JPEG2000") if name in FORMATS),
    ]
    for content in files:
        expected = read_image(content).pixels
        assert np.array_equal(decode(decoders, content), expected)
        height, width = asyncio.run(decoders.measure(content))
        assert height * width * 3 == expected.nbytes


def test_what_is_refused_says_why_and_the_next_picture_is_read(make_decoders):
    decoders = make_decoders()
    with pytest.raises(ImageRefusedError, match="cannot be decoded, is it cut short"):
        decode(decoders, PNG[:60])
    assert decode(decoders, PNG).shape == (30, 40, 3)


def test_a_picture_that_takes_too_long_is_given_up_and_the_next_is_read(make_decoders):
    decoders = make_decoders(decode_s=0.05)
    with pytest.raises(ImageRefusedError, match=r"takes longer than 0\.05 s to decode"):
        decode(decoders, plain_text((2000, 1000)))
    patient = make_decoders(decode_s=60)
    assert decode(patient, plain_text((20, 10))).tolist() == np.full((10, 20, 3), 7).tolist()


@on_linux
def test_a_picture_that_takes_too_much_memory_is_refused_and_the_next_is_read(make_decoders):
    decoders = make_decoders(decode_bytes=100 * 2**20, decode_s=600)
    large = (large_tile(8192), of_mode("RGB", "WEBP"), of_mode("RGB", "PNG"))
    for content in (*large, deep_colours(".png", (4000, 5000))):
        with pytest.raises(ImageRefusedError, match=r"more than 100 MiB|cannot be decoded"):
            decode(decoders, content)
    assert decode(decoders, PNG).shape == (30, 40, 3)


@on_linux
def test_what_needs_more_than_most_waits_for_the_process_that_may(make_decoders, monkeypatch):
    monkeypatch.setattr(decoders_module, "QUICK_BYTES", 2**20)
    decoders = make_decoders()
    for file_format in ("PNG", "WEBP", "TIFF"):
        large = encoded("RGB", file_format, (1500, 1500))
        assert np.array_equal(decode(decoders, large), read_image(large).pixels)


def test_slow_pictures_do_not_hold_up_others(make_decoders, monkeypatch):
    monkeypatch.setattr(decoders_module, "QUICK_PROCESSES", 2)
    monkeypatch.setattr(decoders_module, "QUICK_S", 2.0)  # for the small one on a busy machine
    decoders = make_decoders(decode_s=600)

    async def beside():
        slow = plain_text((4000, 4000))
        waiting = [asyncio.create_task(decoders.decode(slow)) for _ in range(2)]
        await asyncio.sleep(0)
        assert (await asyncio.wait_for(decoders.decode(PNG), 120)).shape == (30, 40, 3)
        assert not all(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=120)
        return [task.cancelled() for task in waiting]

    assert asyncio.run(beside()) == [True] * 2


def test_a_process_that_dies_is_replaced(make_decoders, monkeypatch):
    monkeypatch.setattr(decoders_module, "QUICK_PROCESSES", 1)
    decoders = make_decoders()
    assert decode(decoders, PNG).shape == (30, 40, 3)
    [process] = decoders._quick._processes
    process._running.send_signal(signal.SIGKILL)
    process._running.wait()
    assert decode(decoders, PNG).shape == (30, 40, 3)


def test_closing_ends_the_processes_whatever_they_do(make_decoders):
    decoders = make_decoders(decode_s=600)

    async def close():
        slow = asyncio.create_task(decoders.decode(plain_text((4000, 4000))))
        processes = [*decoders._quick._processes, *decoders._patient._processes]
        while not (running := [p._running for p in processes if p._running]):
            await asyncio.sleep(0.01)
        await asyncio.to_thread(decoders.close)
        with pytest.raises(ImageRefusedError, match="shutting down"):
            await slow
        return [process.poll() for process in running]

    assert None not in asyncio.run(close())
    with pytest.raises(ImageRefusedError, match="shutting down"):
        asyncio.run(_ask_a_closed_one(decoders))


async def _ask_a_closed_one(decoders):
    decoders._quick._processes[0].start()
