"""`export/video@v1`: a video a clip, in its place when the run ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sam2_blocks.engine.records import Item
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.runner import Runner
from sam2_blocks.formats.video import decode_frames, read_facts
from sam2_blocks.testing import FakeExecutor, check_block
from sam2_blocks.values import Image, VideoFrame


def frame(index: int, video: str | None = "deep/a.mov", hw=(32, 48)) -> Image:
    at = VideoFrame(video, index, fps=12.5) if video else None
    return Image(np.full((*hw, 3), 10 * index, np.uint8), f"{index}", video=at)


@pytest.fixture
def export(plugins, tmp_path):
    """Run frames through the block: their results, once the run has ended."""

    def run(frames, **params):
        pipeline = plugins.load_pipeline(
            {
                "pipeline_version": 1,
                "inputs": {"image": {"kind": "image"}},
                "steps": {
                    "video": {
                        "use": "export/video@v1",
                        "with": {"image": "$inputs.image", **params},
                    }
                },
                "outputs": {"path": "$steps.video.path"},
            }
        )
        items = [Item(str(n), {"image": image}) for n, image in enumerate(frames)]
        resources = Resources({"sam2": FakeExecutor}, tmp_path)
        with Runner(pipeline, plugins, resources=resources) as runner:
            return list(runner.run(items))

    return run


def test_examples_run(plugins):
    check_block("export/video@v1", plugins=plugins)


def test_two_clips_in_one_run(export, tmp_path):
    frames = [frame(n // 2, "ab"[n % 2] + ".mp4") for n in range(8)]
    results = export(frames)
    assert {result.outputs["path"] for result in results} == {
        str(tmp_path / "a.mp4"),
        str(tmp_path / "b.mp4"),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
    facts = read_facts(tmp_path / "a.mp4")
    assert (facts.frames, facts.fps) == (4, 12.5)
    means = [float(pixels.mean()) for pixels, _ in decode_frames(tmp_path / "b.mp4")]
    assert means == pytest.approx([0, 10, 20, 30], abs=2)


@pytest.mark.parametrize(
    ("image", "params", "name", "fps"),
    [
        (frame(0), {}, "a.mp4", 12.5),
        (frame(0), {"path": "x/{video}.mkv", "fps": 5}, "x/a.mkv", 5),
        (frame(0, None), {}, "frames.mp4", 25),
    ],
)
def test_name_and_rate(export, tmp_path, image, params, name, fps):
    export([image] * 3, **params)
    assert read_facts(tmp_path / name).fps == fps


def test_frames_that_do_not_fit_are_errors_of_their_own(export, tmp_path):
    results = export([frame(0), frame(1, hw=(16, 16)), frame(2)])
    assert "does not fit a video of 48x32" in results[1].errors[0].message
    assert read_facts(tmp_path / "a.mp4").frames == 2


def test_a_codec_that_is_not_there(export):
    [result] = export([frame(0)], codec="mpeg99")
    assert "there is no encoder 'mpeg99' here; leave 'codec' out" in result.errors[0].message


def test_a_folder_of_that_name(export, tmp_path):
    (tmp_path / "a.mp4").mkdir()
    [result] = export([frame(0)])
    assert "is a folder, of results perhaps; choose another 'path'" in result.errors[0].message


def test_two_videos_of_one_name_are_not_mixed(export, tmp_path):
    frames = [frame(0, "walk.gif"), frame(1, "walk.webp"), frame(2, "walk.gif")]
    results = export(frames)
    message = results[1].errors[0].message
    assert "walk.mp4 is that of 'walk.gif', and 'walk.webp' would be mixed with it" in message
    assert read_facts(tmp_path / "walk.mp4").frames == 2
    assert not any(result.errors for result in export(frames, path="all.mp4"))


@pytest.mark.parametrize(("params", "expected"), [({}, [0, 0.4, 2.4]), ({"fps": 5}, [0, 0.2, 0.4])])
def test_a_video_of_every_fifth_frame_is_as_fast_as_the_whole(export, tmp_path, params, expected):
    """Unless it is told how fast."""
    images = [
        replace(frame(n // 5), video=VideoFrame("a.mp4", n, timestamp_s=n * 0.08, fps=12.5))
        for n in (5, 10, 35)
    ]
    export(images, **params)
    times = [time_s for _, time_s in decode_frames(tmp_path / "a.mp4")]
    assert times == pytest.approx(expected, abs=1e-3)
