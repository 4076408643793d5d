"""Frames out of videos and pictures into them."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import av
import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.errors import ImageError
from sam2_blocks.formats.video import FrameReader, VideoFile, decode_frames, read_facts
from sam2_blocks.values import VideoFrame

HW = (48, 64)


def shade(number: int) -> np.ndarray:
    return np.full((*HW, 3), 20 * number, np.uint8)


def write(path, count=10, fps=10, times_s=None, **options):
    video = VideoFile(path, fps=fps, **options)
    for number, time_s in enumerate(times_s or [None] * count):
        video.add(shade(number), time_s)
    video.close()
    return path


def times_of(path):
    return [time_s for _, time_s in decode_frames(path)]


UNEVEN = [5, 5.04, 5.08, 7, 7.033, 9.5]


@pytest.mark.parametrize(("ending", "within"), [(".mp4", 1e-4), (".mkv", 1e-3), (".mov", 1e-4)])
def test_frames_are_shown_when_they_are_said_to_be(tmp_path, ending, within):
    path = write(tmp_path / f"clip{ending}", times_s=UNEVEN)
    expected = [time_s - 5 for time_s in UNEVEN]
    assert times_of(path) == pytest.approx(expected, abs=within)
    assert list(read_facts(path).times_s) == pytest.approx(expected, abs=within)
    with av.open(str(path)) as container:
        assert container.duration / av.time_base > expected[-1]


def test_pictures_that_move_are_shown_as_long(tmp_path):
    path = write(tmp_path / "clip.webp", times_s=[0, 0.5, 0.6])
    with Pil.open(path) as picture:
        durations = []
        for number in range(2):
            picture.seek(number)
            picture.load()
            durations.append(picture.info["duration"])
    assert durations == [500, 100]


@pytest.mark.parametrize("rate", [10, 12, 24, 25, 30, 30000 / 1001, 50, 60])
def test_times_of_a_steady_rate_are_that_rate(tmp_path, rate):
    path = write(tmp_path / "clip.mp4", fps=rate, times_s=[n / rate for n in range(12)])
    facts = read_facts(path)
    assert (facts.frames, facts.fps) == (12, pytest.approx(rate, rel=1e-4))


def test_times_that_are_missing_or_begin_anew(tmp_path):
    path = write(tmp_path / "clip.mp4", times_s=[3, None, 3.5, 0, 0.25, 0.25])
    assert times_of(path) == pytest.approx([0, 0.1, 0.5, 0.6, 0.85, 0.95], abs=1e-4)


def test_a_container_without_times_has_the_rate(tmp_path):
    facts = read_facts(write(tmp_path / "clip.avi", times_s=UNEVEN))
    assert (facts.frames, facts.fps) == (6, 10)
    assert list(facts.times_s) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def number_of(pixels: np.ndarray) -> int:
    return round(float(pixels.mean()) / 20)


@pytest.fixture
def clip(tmp_path):
    return write(tmp_path / "clip.mp4")


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov", ".avi", ".webm"])
def test_what_is_written_is_read_again(tmp_path, ending):
    path = write(tmp_path / f"clip{ending}")
    facts = read_facts(path)
    assert (facts.frames, round(facts.fps)) == (10, 10)
    found = list(decode_frames(path))
    assert [number_of(pixels) for pixels, _ in found] == list(range(10))
    if ending != ".avi":  # has no times
        assert found[3][1] == pytest.approx(0.3, abs=0.01)
    assert found[0][0].shape == (*HW, 3)


@contextmanager
def sender(content: bytes):
    """An address that sends this to whoever comes, and then falls silent."""
    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", 0)) as server:
        taken = []

        def serve():
            connection, _ = server.accept()
            taken.append(connection)
            connection.sendall(content)

        pool.submit(serve)
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        for connection in taken:
            connection.close()


def test_a_stream_that_falls_silent(tmp_path, monkeypatch):
    """What came before is there, then why no more comes."""
    monkeypatch.setattr("sam2_blocks.formats.video.MOST_SILENT_S", 1.5)
    stream = VideoFile(tmp_path / "clip.ts", fps=10, codec="mpeg4", ending=".mpegts")
    for number in range(240):
        stream.add(shade(number % 12))
    stream.close()
    with sender((tmp_path / "clip.ts").read_bytes()) as address:
        *found, (last, _) = decode_frames(address)
    assert [number_of(pixels) for pixels, _ in found[:13]] == [*range(12), 0]
    assert isinstance(last, ImageError)
    assert f"{address}: breaks off here: nothing came for 1.5 s" in str(last)


def test_an_address_that_never_says_anything(monkeypatch):
    monkeypatch.setattr("sam2_blocks.formats.video.MOST_SILENT_S", 0.3)
    message = r"tcp://.*: is no video that can be opened here: nothing came for 0.3 s"
    with sender(b"") as address, pytest.raises(ImageError, match=message):
        next(decode_frames(address))


@pytest.mark.parametrize(
    ("name", "codec", "message"),
    [
        ("clip.xyz", None, r"no video ends in '\.xyz'; choose \.mp4, "),
        ("clip", None, r"no video ends in ''; choose \.mp4, "),
        ("clip.gif", None, r"libx264 cannot be written into a \.gif here .*choose \.mp4, "),
        ("clip.webm", "libx264", r"libx264 cannot be written into a \.webm here"),
        ("clip.mp4", "mpeg99", "there is no encoder 'mpeg99' here; leave 'codec' out for libx264"),
    ],
)
def test_a_video_that_cannot_begin_leaves_nothing(tmp_path, name, codec, message):
    """And says the same of every frame."""
    video = VideoFile(tmp_path / name, codec=codec)
    for number in range(2):
        with pytest.raises(ValueError, match=message):
            video.add(shade(number))
    assert not video.close()
    assert list(tmp_path.iterdir()) == []


def test_a_picture_too_small_for_a_video(tmp_path):
    video = VideoFile(tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match="a video wants pictures of 2x2 pixels or more"):
        video.add(shade(0)[:1, :1])
    assert not video.close()


def test_a_codec_by_name(tmp_path):
    path = write(tmp_path / "clip.webm", codec="libvpx-vp9")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name in ("vp9", "libvpx-vp9")


def test_a_picture_that_moves(tmp_path):
    with Pil.open(write(tmp_path / "clip.webp", count=4)) as picture:
        assert (picture.n_frames, picture.size) == (4, HW[::-1])
        assert picture.info["loop"] == 0  # for ever
        picture.seek(2)
        assert number_of(np.asarray(picture.convert("RGB"))) == 2


def test_frames_in_order_and_back_again(clip):
    reader = FrameReader(clip, "clip.mp4", 10.0)
    assert [number_of(reader.read(n, "x").pixels) for n in (0, 1, 5, 3, 0)] == [0, 1, 5, 3, 0]
    image = reader.read(4, "clip/4")
    assert image.id == "clip/4"
    assert image.video == VideoFrame("clip.mp4", 4, pytest.approx(0.4, abs=0.01), 10.0)
    reader.close()


def test_threads_share_a_reader(clip):
    reader = FrameReader(clip, "clip.mp4")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: number_of(reader.read(n, "x").pixels), range(10)))
    assert found == list(range(10))


def test_a_frame_beyond_the_end(clip):
    with pytest.raises(ImageError, match=r"frame 30 of .*clip.mp4: the video ends after 10 frames"):
        FrameReader(clip, "clip").read(30, "x")


def damaged(path, which=2):
    """Write five frames, of which one cannot be decoded."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        (stream.height, stream.width), stream.pix_fmt = HW, "rgb24"
        for number in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade(number), format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes().split(b"IHDR")
    content[which + 1] = bytes(8) + content[which + 1][8:]  # the picture has no size any more
    path.write_bytes(b"IHDR".join(content))
    return path


@pytest.mark.parametrize("which", [0, 2, 3, 4])
def test_a_damaged_frame_is_an_error_and_the_video_goes_on(tmp_path, which):
    """Near the end, too, where a decoder with many threads still holds what it has decoded."""
    reader = FrameReader(damaged(tmp_path / "clip.avi", which), "clip")
    for number in range(5):
        if number == which:
            with pytest.raises(
                ImageError, match=rf"frame {which} of .*avi: cannot be decoded here"
            ):
                reader.read(number, "x")
        else:
            assert number_of(reader.read(number, "x").pixels) == number


def test_what_is_no_video(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    with pytest.raises(
        ImageError, match=r"notes.mp4: is no video that can be opened here: Invalid data found"
    ):
        read_facts(path)


def test_odd_sides_are_cut(tmp_path):
    video = VideoFile(tmp_path / "clip.mp4")
    video.add(np.zeros((33, 51, 3), np.uint8))
    video.close()
    [(pixels, _)] = decode_frames(tmp_path / "clip.mp4")
    assert pixels.shape == (32, 50, 3)


def test_pictures_of_several_sizes(tmp_path):
    video = VideoFile(tmp_path / "clip.mp4")
    video.add(shade(0))
    with pytest.raises(ValueError, match=r"a picture of 20x10 does not fit a video of 64x48"):
        video.add(np.zeros((10, 20, 3), np.uint8))
    video.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_place_of_its_own_in_the_file(clip):
    reader = FrameReader(clip, "clip")
    assert number_of(reader.read(0, "0").pixels) == 0
    with reader._lock:  # as if a thread was reading when the process forked
        child = os.fork()
        if not child:
            os._exit(number_of(reader.read(3, "3").pixels))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert [number_of(reader.read(index, "").pixels) for index in (1, 2, 9)] == [1, 2, 9]
