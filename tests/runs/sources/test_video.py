"""Frames as items: of files, of folders, and which of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.clips import Clip
from sam2_blocks.engine.places import FrameChoice, RunRequest
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import ImageError, UsageError
from sam2_blocks.formats.video import VideoFacts, VideoFile
from sam2_blocks.runs.opening import open_source
from sam2_blocks.runs.run import run_pipeline
from sam2_blocks.runs.sources.video import (
    FolderFrames,
    LiveFrames,
    VideoFrames,
    choose_frames,
    open_video,
)
from sam2_blocks.testing import FakeExecutor
from sam2_blocks.values import VideoFrame
from tests.conftest import ROOT
from tests.formats.test_video import damaged, number_of, shade, write

SHADES = 12


@pytest.fixture
def request_for(plugins):
    pipeline = plugins.load_pipeline(
        {
            "pipeline_version": 1,
            "inputs": {"image": {"kind": "image"}},
            "steps": {"embed": {"use": "sam2/embed@v1", "with": {"image": "$inputs.image"}}},
            "outputs": {"image": "$inputs.image"},
        }
    )
    return lambda **choice: RunRequest(
        pipeline, plugins, max_pixels=1000, frames=FrameChoice(**choice)
    )


def frames_of(source):
    items = list(source.items())
    assert len(items) == source.total
    return [(item.id, item.inputs["image"]()) for item in items]


def test_every_frame_is_an_item(tmp_path, request_for):
    source = open_video(str(write(tmp_path / "clip.mp4", count=4)), request_for())
    found = frames_of(source)
    assert [name for name, _ in found] == [f"clip/00000{n}" for n in range(4)]
    assert [number_of(image.pixels) for _, image in found] == [0, 1, 2, 3]
    assert found[2][1].video == VideoFrame("clip.mp4", 2, pytest.approx(0.2, abs=0.01), 10.0)
    assert {item.group for item in source.items()} == {str(tmp_path / "clip.mp4")}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"every": 3}, [0, 3, 6, 9]),
        ({"start": "7"}, [7, 8, 9]),
        ({"stop": "2"}, [0, 1]),
        ({"start": "0.25s", "stop": "0.6s"}, [3, 4, 5]),
        ({"start": "1", "stop": "99", "every": 4}, [1, 5, 9]),
    ],
)
def test_some_frames(tmp_path, request_for, choice, expected):
    source = VideoFrames(write(tmp_path / "clip.mp4"), request_for(**choice))
    assert [image.video.index for _, image in frames_of(source)] == expected
    assert [number_of(image.pixels) for _, image in frames_of(source)] == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"start": "40"}, "none of its 10 frames are wanted; see --from, --to and --every"),
        (
            {"start": "soon"},
            "--from wants a frame's number or seconds, such as 90 or 3.5s; got 'soon'",
        ),
    ],
)
def test_frames_that_are_not_there(tmp_path, request_for, choice, message):
    with pytest.raises(UsageError, match=message):
        VideoFrames(write(tmp_path / "clip.mp4"), request_for(**choice))


def test_a_file_that_is_no_video(tmp_path, request_for):
    path = tmp_path / "a.mp4"
    path.write_text("")
    with pytest.raises(UsageError, match="is no video that can be opened here"):
        open_video(str(path), request_for())
    assert open_video(str(tmp_path / "a.jpg"), request_for()) is None


@pytest.mark.parametrize("address", ["rtsp://camera/stream", "/dev/video0", "udp://239.0.0.1:1234"])
def test_live_sources_have_no_end_and_cannot_be_resumed(address, request_for):
    source = open_video(address, request_for())
    assert isinstance(source, LiveFrames)
    assert source.total is None
    assert source.identity is None


def test_a_live_source_gives_frames_as_they_come(tmp_path, request_for):
    path = write(tmp_path / "clip.mp4")
    source = LiveFrames(str(path), request_for(every=4, stop="9"))
    found = [(item.id, item.inputs["image"]()) for item in source.items()]
    assert [(name, image.video.index, number_of(image.pixels)) for name, image in found] == [
        ("live/000000", 0, 0),
        ("live/000004", 4, 4),
        ("live/000008", 8, 8),
    ]


SENDER = """
import sys, av
from tests.formats.test_video import HW, shade

with av.open(sys.argv[1] + "?listen=1", "w", format="mpegts") as container:
    stream = container.add_stream("mpeg4", rate=10)
    (stream.height, stream.width), stream.pix_fmt = HW, "yuv420p"
    for number in range(8):
        picture = av.VideoFrame.from_ndarray(shade(number), format="rgb24")
        container.mux(stream.encode(picture))
    container.mux(stream.encode())
"""


def test_a_stream_over_the_network(request_for):
    """A sender on this machine, whose frames become items as they come."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    sender = subprocess.Popen([sys.executable, "-c", SENDER, address], cwd=ROOT)
    try:
        found = frames_once_sent(lambda: open_video(address, request_for(every=3)))
    finally:
        sender.kill()
        sender.wait()
    assert [(frame.video.index, number_of(frame.pixels)) for frame in found] == [
        (0, 0),
        (3, 3),
        (6, 6),
    ]


@pytest.fixture
def rtsp():
    """A camera on this machine: VLC, which shows a minute as fast as it is meant."""
    vlc = shutil.which("cvlc")
    if vlc is None:
        pytest.skip("needs VLC as a server of RTSP")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"rtsp://127.0.0.1:{free.getsockname()[1]}/clip"
    # VLC refuses to run as root, and whoever it runs as then reads no folder of root.
    other = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        clip = VideoFile(Path(folder, "clip.mp4"), fps=10)
        for number in range(600):
            clip.add(shade(number % SHADES))
        clip.close()
        command = [
            vlc,
            "-I",
            "dummy",
            f"{folder}/clip.mp4",
            "--sout",
            f"#rtp{{sdp={address}}}",
            "--sout-keep",
        ]
        server = subprocess.Popen(
            command, env=os.environ | {"HOME": folder}, stderr=subprocess.DEVNULL, **other
        )
        try:
            yield address, server
        finally:
            server.kill()
            server.wait()


def test_a_camera_over_rtsp(rtsp, request_for):
    address, _ = rtsp
    found = frames_once_sent(lambda: open_video(address, request_for(every=2, stop="7")))
    assert [frame.video.index for frame in found] == [0, 2, 4, 6]
    shown = [number_of(frame.pixels) for frame in found]
    assert [(number - shown[0]) % SHADES for number in shown] == [0, 2, 4, 6]


def test_a_camera_that_is_switched_off(rtsp, request_for):
    """What came before is there, and the run ends."""
    address, server = rtsp
    found = []

    def take():
        for item in open_video(address, request_for()).items():
            found.append(item.inputs["image"]())
            if len(found) == 3:
                server.kill()
            yield item

    frames_once_sent(lambda: SimpleNamespace(items=take))
    assert [frame.video.index for frame in found] == list(range(len(found)))
    assert len(found) >= 3


def frames_once_sent(open_source, seconds=300):
    """The frames of a source, asked for again until its sender listens."""
    end = time.monotonic() + seconds
    while True:
        try:
            return [item.inputs["image"]() for item in open_source().items()]
        except ImageError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_a_camera_that_is_not_there(request_for):
    source = open_video("/dev/video99", request_for())
    with pytest.raises(ImageError, match=r"/dev/video99: is no video that can be opened here"):
        next(source.items())


def test_a_damaged_frame_is_an_error_of_the_run_and_the_clip_goes_on(tmp_path, plugins):
    """And a tracker goes on with the frames that there are."""
    path = damaged(tmp_path / "clip.avi")
    pipeline = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}},
        "steps": {
            "track": {
                "use": "sam2/track@v1",
                "with": {"image": "$inputs.image", "prompts": [{"box_xyxy": [2, 2, 20, 20]}]},
            }
        },
        "outputs": {"predictions": "$steps.track.predictions"},
    }
    resources = Resources({"sam2": FakeExecutor}, tmp_path)
    out = tmp_path / "out"
    run = run_pipeline(pipeline, path, out=out, plugins=plugins, resources=resources)
    results = {result.id: result for result in run}
    assert [bool(results[f"clip/00000{n}"].errors) for n in range(5)] == [False] * 2 + [True] + [
        False
    ] * 2
    assert results["clip/000004"].outputs["predictions"].tracker_id.tolist() == [1]
    [error] = json.loads((out / "errors.json").read_text())
    assert error["item"] == "clip/000002"
    assert "cannot be decoded here" in error["message"]


@pytest.fixture
def folder(tmp_path):
    """Frames whose names sort naturally, and a second clip below."""
    folder = tmp_path / "walk"
    for name in ("2.png", "10.png", "1.png", "other/7.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Pil.new("RGB", (8, 6)).save(path)
    return folder


def test_a_folder_of_frames_is_a_video(folder, request_for):
    source = FolderFrames([str(folder)], request_for(as_video=True))
    found = {name: image.video for name, image in frames_of(source)}
    assert found == {
        "1.png": VideoFrame("walk", 0),
        "2.png": VideoFrame("walk", 1),
        "10.png": VideoFrame("walk", 2),
        "other/7.png": VideoFrame("other", 0),
    }


def test_some_frames_of_a_folder(folder, request_for):
    source = FolderFrames([str(folder)], request_for(as_video=True, every=2))
    assert [name for name, _ in frames_of(source)] == ["1.png", "10.png", "other/7.png"]
    with pytest.raises(UsageError, match="none of the frames are wanted"):
        FolderFrames([str(folder)], request_for(as_video=True, start="9"))
    with pytest.raises(UsageError, match="nobody knows how long a frame is here"):
        FolderFrames([str(folder)], request_for(as_video=True, start="1s"))


@pytest.fixture
def clip_request(plugins):
    """A request of a pipeline that wants frames and their whole clip."""
    step = {"use": "sam2/propagate@v1", "with": {"image": "$inputs.image", "clip": "$inputs.whole"}}
    pipeline = plugins.load_pipeline(
        {
            "pipeline_version": 1,
            "inputs": {"image": {"kind": "image"}, "whole": {"kind": "clip"}},
            "steps": {"follow": step},
            "outputs": {"predictions": "$steps.follow.predictions"},
        }
    )
    return lambda **choice: RunRequest(
        pipeline, plugins, max_pixels=1000, frames=FrameChoice(**choice), value_range=(0, 9)
    )


def test_a_frame_brings_its_whole_clip_where_it_is_wanted(tmp_path, clip_request, request_for):
    path = write(tmp_path / "clip.mp4")
    [first, *_, last] = VideoFrames(path, clip_request(start="2", every=3)).items()
    assert first.inputs["whole"] is last.inputs["whole"]
    assert first.inputs["whole"] == Clip("clip.mp4", path, range(2, 10, 3), fps=10.0)
    assert "whole" not in next(VideoFrames(path, request_for()).items()).inputs


def test_a_folder_of_frames_is_a_whole_clip(folder, clip_request):
    source = FolderFrames([str(folder)], clip_request(as_video=True))
    clips = {item.id: item.inputs["whole"] for item in source.items()}
    files = tuple(folder / f"{n}.png" for n in (1, 2, 10))
    assert clips["2.png"] == Clip("walk", folder, (0, 1, 2), files, value_range=(0, 9))
    assert clips["other/7.png"].files == (folder / "other" / "7.png",)


def test_a_video_is_resumed_as_a_whole(tmp_path, plugins):
    """A clip of which one frame is not done is run again; one that is done is not."""
    for name in ("a", "b"):
        write(tmp_path / f"{name}.mp4", count=3)
    pipeline = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}},
        "steps": {"video": {"use": "export/video@v1", "with": {"image": "$inputs.image"}}},
        "outputs": {"path": "$steps.video.path"},
    }
    inputs, out = [tmp_path / "a.mp4", tmp_path / "b.mp4"], tmp_path / "out"
    run = run_pipeline(pipeline, inputs, out=out, plugins=plugins, batch_size=1)
    with run:
        for result in run:
            if result.id == "b/000001":
                break
    again = run_pipeline(pipeline, inputs, out=out, plugins=plugins, resume=True)
    assert [result.id for result in again] == ["b/000000", "b/000001", "b/000002"]
    names = sorted(path.name for path in out.iterdir())
    assert {"a.mp4", "b.mp4"} <= set(names)


def test_a_pattern_names_videos(tmp_path, request_for):
    """In natural order; one that cannot be opened fails alone."""
    for name in ("10", "2"):
        write(tmp_path / f"{name}.mp4", count=2)
    (tmp_path / "3.mp4").write_text("no video")
    source = open_video(f"{tmp_path}/*.mp4", request_for())
    items = list(source.items())
    assert source.total == len(items)
    assert [item.id for item in items] == [
        "3.mp4",
        "2/000000",
        "2/000001",
        "10/000000",
        "10/000001",
    ]
    with pytest.raises(ImageError, match=r"3\.mp4: is no video that can be opened here"):
        items[0].inputs["image"]()
    assert number_of(items[4].inputs["image"]().pixels) == 1
    assert source.identity.startswith(f"{tmp_path}/*.mp4 ")


def test_a_pattern_names_each_video_once_also_in_a_circle_of_links(tmp_path, request_for):
    write(tmp_path / "a.mp4", count=2)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "loop").symlink_to("..", target_is_directory=True)
    items = open_video(f"{tmp_path}/**/*.mp4", request_for()).items()
    assert [item.id for item in items] == ["a/000000", "a/000001"]


def test_a_video_that_cannot_be_opened_has_a_clip_too(tmp_path, clip_request):
    """So that it is that which is said of it."""
    write(tmp_path / "a.mp4", count=2)
    (tmp_path / "b.mp4").touch()
    broken = next(open_video(f"{tmp_path}/*.mp4", clip_request()).items())
    assert (broken.id, broken.inputs["whole"].id) == ("b.mp4", "b.mp4")


def test_videos_of_a_pattern_that_are_too_short_are_noted(tmp_path, request_for):
    for name, count in (("short", 2), ("long", 4)):
        write(tmp_path / f"{name}.mp4", count=count)
    source = open_video(f"{tmp_path}/*.mp4", request_for(start="2"))
    assert [item.id for item in source.items()] == ["long/000002", "long/000003"]
    assert source.notes == [f"left out: {tmp_path}/short.mp4, none of whose frames are wanted"]
    with pytest.raises(UsageError, match=r"\*\.mp4: none of the frames are wanted; see --from"):
        open_video(f"{tmp_path}/*.mp4", request_for(start="9"))


def test_a_pattern_of_videos_and_others_is_refused(tmp_path, request_for):
    for name in ("a.mp4", "deep/a.mp4", "a.prompts.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=r"matches 1 videos and 1 other files; .*'\*\.mp4'"):
        open_video(f"{tmp_path}/*", request_for())
    with pytest.raises(UsageError, match=r"results are named like their video, and .* be mixed"):
        open_video(f"{tmp_path}/**/*.mp4", request_for())
    assert open_video(f"{tmp_path}/*.json", request_for()) is None


def test_a_video_that_is_said_to_be_one(tmp_path, request_for):
    path = write(tmp_path / "clip.mp4", count=2).rename(tmp_path / "clip.dav")
    assert open_video(str(path), request_for()) is None
    source = open_source(f"video:{path}", request_for())
    assert [item.id for item in source.items()] == ["clip/000000", "clip/000001"]


@pytest.mark.parametrize("ending", [".ts", ".mts", ".ogv", ".3gp"])
def test_endings_of_cameras_and_streams(tmp_path, request_for, ending):
    path = write(tmp_path / "clip.mkv", count=2).rename(tmp_path / f"clip{ending}")
    assert open_video(str(path), request_for()).total == 2


def test_a_picture_that_moves_is_a_video(tmp_path, request_for):
    frames = [Pil.new("RGB", (8, 6), (50 * n, 0, 0)) for n in range(3)]
    for name in ("walk.gif", "run.gif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    source = FolderFrames([str(tmp_path / "walk.gif")], request_for(as_video=True, every=2))
    assert [image.video for _, image in frames_of(source)] == [
        VideoFrame("walk.gif", 0),
        VideoFrame("walk.gif", 2),
    ]
    both = FolderFrames([str(tmp_path)], request_for(as_video=True))
    assert [image.video for _, image in frames_of(both)] == [
        VideoFrame(name, n) for name in ("run.gif", "walk.gif") for n in range(3)
    ]


def test_seconds_of_a_video_whose_frames_are_not_evenly_spaced(tmp_path, request_for):
    """Such as of a telephone: its average rate says nothing of where a second begins."""
    path = write(tmp_path / "clip.mp4", times_s=[0, 0.04, 0.08, 2, 2.1, 9])
    source = VideoFrames(path, request_for(start="2s"))
    assert [image.video.index for _, image in frames_of(source)] == [3, 4, 5]
    source = VideoFrames(path, request_for(start="0.04s", stop="9s"))
    assert [image.video.index for _, image in frames_of(source)] == [1, 2, 3, 4]


def test_seconds_of_a_video_without_times():
    choice = FrameChoice(start="0.5s", stop="0.8s")
    assert list(choose_frames(choice, VideoFacts(10, 10.0))) == [5, 6, 7]


def test_a_slow_video_is_not_taken_for_one_that_is_cut_short(tmp_path, request_for):
    path = write(tmp_path / "clip.mp4", count=4, fps=0.2)
    assert open_video(str(path), request_for()).notes == []


@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_a_video_that_is_cut_short_is_noted(tmp_path, request_for, ending):
    """Nothing fails in it: it only ends."""
    path = tmp_path / f"whole{ending}"
    video, noise = VideoFile(path, fps=4), np.random.default_rng(0)
    for _ in range(40):
        video.add(noise.integers(0, 255, (48, 64, 3), np.uint8))
    video.close()
    assert open_video(str(path), request_for()).notes == []
    cut = tmp_path / f"cut{ending}"
    if ending == ".mp4":  # what says how long it is has to come first
        with (
            av.open(str(path)) as whole,
            av.open(str(cut), "w", options={"movflags": "faststart"}) as copy,
        ):
            stream = copy.add_stream_from_template(whole.streams.video[0])
            for packet in whole.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    copy.mux(packet)
        path = cut
    content = path.read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3])
    [note] = open_video(str(cut), request_for()).notes
    assert "s longer; is it cut short?" in note
    assert open_video(f"{tmp_path}/cut*", request_for()).notes == [note]
