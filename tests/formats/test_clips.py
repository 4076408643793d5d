"""Clips as plain data, and their frames in any order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.clips import Clip
from sam2_blocks.errors import ImageError
from sam2_blocks.formats import video
from sam2_blocks.formats.clips import ClipReader, clip_to_plain, plain_to_clip, sample_clip
from sam2_blocks.values import VideoFrame
from tests.formats.test_video import number_of, write


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "clip.mp4")


def test_frames_of_a_video_backwards(file):
    reader = ClipReader(Clip("clip.mp4", file, range(1, 10, 2), fps=10.0))
    found = [reader.read(place) for place in (4, 3, 2, 1, 0)]
    assert [number_of(image.pixels) for image in found] == [9, 7, 5, 3, 1]
    assert found[1].id == "clip/000007"
    assert found[1].video == VideoFrame("clip.mp4", 7, pytest.approx(0.7, abs=0.01), 10.0)


def test_a_video_is_not_decoded_anew_for_every_step_back(file, monkeypatch):
    decoded = []
    decode = video.decode_frames
    monkeypatch.setattr(video, "decode_frames", lambda path: decoded.append(path) or decode(path))
    monkeypatch.setattr(video, "MOST_WAITING", 2)
    reader = ClipReader(Clip("clip.mp4", file, range(10)))
    for place in range(9, -1, -1):
        reader.read(place)
    assert len(decoded) == 1
    reader.close()
    assert number_of(reader.read(3).pixels) == 3


def test_frames_that_wait_are_bounded_in_bytes(file, monkeypatch):
    decoded = []
    decode = video.decode_frames
    monkeypatch.setattr(video, "decode_frames", lambda path: decoded.append(path) or decode(path))
    monkeypatch.setattr(video, "MOST_WAITING", 1)
    monkeypatch.setattr("sam2_blocks.formats.clips.KEPT_BYTES", 3 * 48 * 64 * 3)
    reader = ClipReader(Clip("clip.mp4", file, range(10)))
    found = [number_of(reader.read(place).pixels) for place in range(9, -1, -1)]
    assert found == list(range(9, -1, -1))
    assert len(decoded) == 3  # 9 and the three before, 5 and the three before, 1 and 0


def test_frames_of_pictures(tmp_path):
    files = []
    for number in (1, 2):
        files.append(tmp_path / f"{number}.png")
        Pil.fromarray(np.full((4, 6, 3), number, np.uint8)).save(files[-1])
    reader = ClipReader(Clip("walk", tmp_path, (5, 9), tuple(files)))
    image = reader.read(1)
    assert (image.id, image.video, int(image.pixels[0, 0, 0])) == (
        "2.png",
        VideoFrame("walk", 9),
        2,
    )
    files[0].unlink()
    with pytest.raises(ImageError, match=r"1\.png"):
        reader.read(0)


@pytest.mark.parametrize(
    "clip",
    [
        Clip("a.mp4", Path("in/a.mp4"), range(2, 90, 4), fps=12.5),
        Clip("walk", Path("walk"), (3, 8), (Path("walk/3.png"), Path("walk/8.png"))),
        Clip("deep", Path("deep"), (0,), (Path("deep/0.tif"),), value_range=(0.0, 4095.0)),
    ],
)
def test_a_clip_travels(clip):
    assert plain_to_clip(json.loads(json.dumps(clip_to_plain(clip)))) == clip


def test_the_sample_can_be_read():
    clip = sample_clip()
    assert ClipReader(clip).read(1).hw == (24, 32)
    assert sample_clip() == clip


PLAIN = {"id": "a", "path": "a.mp4", "frames": [0, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": None}, "is no clip: 'NoneType' object is not iterable"),
        ({"frames": [1, 1]}, "frames are whole numbers that rise"),
        ({"frames": [True]}, "frames are whole numbers that rise"),
        ({"frames": {"start": 3}}, "start, stop and step as whole numbers"),
        ({"frames": {"stop": 10**12}}, "want 0 <= start <= stop <= 2147483648"),
        ({"frames": {"stop": 9, "step": 0}}, "a step above 0"),
        ({"files": ["a.png"]}, "wants a file a frame, got 1 for 2"),
        ({"pixels": 3}, r"a clip lacks \[\] and knows no \['pixels'\]"),
        ({"path": 3}, "is no clip"),
    ],
)
def test_what_is_no_clip(change, message):
    with pytest.raises(ValueError, match=message):
        plain_to_clip(PLAIN | change)


def test_a_clip_lacks_something():
    with pytest.raises(ValueError, match=r"a clip lacks \['frames'\] and knows no \[\]"):
        plain_to_clip({"id": "a", "path": "a.mp4"})
    with pytest.raises(TypeError, match=r"wants a mapping with id, path and frames.*got str"):
        plain_to_clip("a.mp4")
