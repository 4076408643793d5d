from __future__ import annotations

import json

import numpy as np
import pytest

from tests.conftest import PICTURES, ROOT
from tests.hosts.ray.conftest import QUIET
from tests.service.conftest import picture

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytest.importorskip("ray.data", reason="needs the extra ray")
pytestmark = QUIET

PICTURE = picture()


def test_a_pipeline_is_a_stage_of_a_data_set(cluster):
    from sam2_blocks.hosts.ray import PipelineStage

    rows = [
        {"image": str(PICTURES / name), "boxes": [[10.0, 10.0, 200.0, 200.0]]}
        for name in ("coffee.jpg", "none.jpg")
    ]
    document = {
        "pipeline_version": 1,
        "inputs": {
            "image": {"kind": "image"},
            "boxes": {"kind": "object_detection_prediction"},
        },
        "steps": {
            "segment": {
                "use": "sam2/segment@v1",
                "with": {"image": "$inputs.image", "boxes": "$inputs.boxes"},
            }
        },
        "outputs": {"predictions": "$steps.segment.predictions"},
    }
    data = ray.data.from_items(rows).map_batches(
        PipelineStage, fn_constructor_args=[document], concurrency=1, batch_size=2
    )
    good, bad = data.take_all()
    [mask] = json.loads(good["predictions"])
    assert mask["segmentation"]["size"] == [400, 600]
    assert good["errors"] == ""
    assert bad["predictions"] is None
    assert "none.jpg: no such file" in bad["errors"]


def test_a_stage_runs_without_a_cluster():
    from sam2_blocks.hosts.ray import PipelineStage

    stage = PipelineStage(ROOT / "examples" / "points.yaml")
    pixels = np.stack([picture(seed, (400, 600)).pixels for seed in range(2)])
    out = stage({"image": pixels})
    assert out["errors"].tolist() == ["", ""]
    assert out["overlay"].shape == (2, 400, 600, 3)
    assert [len(json.loads(cell)) for cell in out["predictions"]] == [3, 3]


def test_a_missing_column_is_named():
    from sam2_blocks.errors import Sam2BlocksError
    from sam2_blocks.hosts.ray import PipelineStage

    stage = PipelineStage(ROOT / "examples" / "points.yaml")
    with pytest.raises(Sam2BlocksError, match=r"lacks the columns \['image'\]; it has \['x'\]"):
        stage({"x": [1]})


def stage_of(step, outputs, **options):
    from sam2_blocks.hosts.ray import PipelineStage

    inputs = {name: {"kind": kind} for name, kind in INPUTS.items()}
    document = {"pipeline_version": 1, "inputs": inputs, "steps": {"step": step}}
    return PipelineStage({**document, "outputs": outputs}, **options)


INPUTS = {"image": "image", "predictions": "rle_instance_segmentation_prediction"}
WIRED = {name: f"$inputs.{name}" for name in INPUTS}
DRAW = {"use": "draw/masks@v1", "with": WIRED}


@pytest.mark.parametrize(
    ("block", "output"), [("export/coco@v1", "annotations"), ("export/yolo@v1", "path")]
)
def test_a_step_that_writes_files_is_refused(block, output):
    from sam2_blocks.errors import PipelineError

    with pytest.raises(PipelineError, match=rf"steps\.step: {block} writes files, which a stage"):
        stage_of({"use": block, "with": WIRED}, {output: f"$steps.step.{output}"})


def test_a_column_of_errors_is_never_overwritten():
    from sam2_blocks.errors import PipelineError, Sam2BlocksError

    with pytest.raises(PipelineError, match=r"outputs\.errors: this column is for errors\. Rename"):
        stage_of(DRAW, {"errors": "$steps.step.image"})
    stage = stage_of(DRAW, {"picture": "$steps.step.image"})
    with pytest.raises(Sam2BlocksError, match="has a column 'errors' already"):
        stage({"image": [PICTURE.pixels], "predictions": [None], "errors": [""]})


def test_a_second_stage_has_errors_of_its_own():
    stage = stage_of(DRAW, {"errors": "$steps.step.image"}, errors_column="why")
    out = stage({"image": ["none.jpg"], "predictions": [None]})
    assert "none.jpg: no such file" in out["why"][0]
    assert out["errors"][0] is None
