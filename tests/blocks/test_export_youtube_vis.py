"""`export/youtube_vis@v1`: one file for all videos, written when the run ends."""

from __future__ import annotations

import json

import pytest

from sam2_blocks.engine.records import Item
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.runner import Runner
from sam2_blocks.runs.run import run_pipeline
from sam2_blocks.testing import FakeExecutor, check_block
from tests.formats.test_video import write
from tests.formats.test_youtube_vis import frame, tracks

COARSE = {"points_per_side": 2, "stability_score_thresh": 0}


@pytest.fixture
def pipeline(plugins):
    kinds = ["rle_instance_segmentation_prediction", "instance_segmentation_prediction"]
    return plugins.load_pipeline(
        {
            "pipeline_version": 1,
            "inputs": {"image": {"kind": "image"}, "tracks": {"kind": kinds}},
            "steps": {
                "vis": {
                    "use": "export/youtube_vis@v1",
                    "with": {"image": "$inputs.image", "predictions": "$inputs.tracks"},
                }
            },
            "outputs": {"count": "$steps.vis.count"},
        }
    )


def test_examples_run(plugins):
    samples = {"image": frame(0, hw=(24, 32)), "predictions": tracks((1, 2), hw=(24, 32))}
    check_block("export/youtube_vis@v1", plugins=plugins, samples=samples)


def test_one_file_when_the_run_ends(plugins, pipeline, tmp_path):
    items = [Item(str(n), {"image": frame(n), "tracks": tracks((1, n), (2, -1))}) for n in range(3)]
    items.append(Item("bad", {"image": frame(3, hw=(4, 4)), "tracks": tracks((1, 0), hw=(4, 4))}))
    resources = Resources({"sam2": FakeExecutor}, tmp_path)
    with Runner(pipeline, plugins, resources=resources) as runner:
        results = list(runner.run(items))
        assert not (tmp_path / "youtube_vis.json").exists()
    assert [result.outputs.get("count") for result in results] == [1, 1, 1, None]
    assert "another size" in results[3].errors[0].message
    document = json.loads((tmp_path / "youtube_vis.json").read_text())
    assert len(document["annotations"]) == 1
    assert [box[0] for box in document["annotations"][0]["bboxes"]] == [0, 1, 2]


def test_a_resumed_run_keeps_the_clips_that_are_done(plugins, tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.mp4", count=3)
    pipeline = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}},
        "steps": {
            "track": {"use": "sam2/track@v1", "with": {"image": "$inputs.image", **COARSE}},
            "vis": {
                "use": "export/youtube_vis@v1",
                "with": {"image": "$inputs.image", "predictions": "$steps.track.predictions"},
            },
        },
        "outputs": {"count": "$steps.vis.count"},
    }
    inputs = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    resources = Resources({"sam2": FakeExecutor}, tmp_path)
    more = {"plugins": plugins, "resources": resources, "batch_size": 1}
    whole = tmp_path / "whole"
    list(run_pipeline(pipeline, inputs, out=whole, **more))
    with run_pipeline(pipeline, inputs, out=tmp_path / "out", **more) as stopped:
        for result in stopped:
            if result.id == "b/000001":
                break
    again = run_pipeline(pipeline, inputs, out=tmp_path / "out", resume=True, **more)
    assert [result.id for result in again] == [f"b/00000{n}" for n in range(3)]
    files = [folder / "youtube_vis.json" for folder in (whole, tmp_path / "out")]
    assert files[0].read_text() == files[1].read_text()
    assert len(json.loads(files[0].read_text())["videos"]) == 2
