from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.formats.columns import _detections_type
from tests.conftest import PICTURES, ROOT
from tests.hosts.contract import check_host_masks
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
    [mask] = good["predictions"]
    assert mask["segmentation"]["size"] == [400, 600]
    assert coco_mask.area(mask["segmentation"]) == mask["area"]
    assert good["errors"] == ""
    assert bad["predictions"] is None
    assert "none.jpg: no such file" in bad["errors"]


def test_the_contract_of_all_hosts(cluster):
    from sam2_blocks.hosts.ray import PipelineStage

    params = {"model": "nano", "device": "cpu"}
    with_ = {"image": "$inputs.image", "prompts": "$inputs.prompts", **params}
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}, "prompts": {"kind": "prompts"}},
        "steps": {"segment": {"use": "sam2/segment@v1", "with": with_}},
        "outputs": {"predictions": "$steps.segment.predictions"},
    }
    actor = ray.remote(PipelineStage).options(num_cpus=1).remote(document)

    def mask_of(image, prompt):
        row = {name: value.tolist() for name, value in vars(prompt).items() if value is not None}
        batch = {"image": [image.pixels], "prompts": [[row]]}
        [[found]] = ray.get(actor.__call__.remote(batch))["predictions"].to_pylist()
        return coco_mask.decode(found["segmentation"]).astype(bool)

    check_host_masks(mask_of, params=params, resources=load_plugins(points=[]).resources())


def test_a_stage_runs_without_a_cluster():
    from sam2_blocks.hosts.ray import PipelineStage

    stage = PipelineStage(ROOT / "examples" / "points.yaml")
    pixels = np.stack([picture(seed, (400, 600)).pixels for seed in range(2)])
    out = stage({"image": pixels})
    assert out["errors"].to_pylist() == ["", ""]
    assert out["overlay"].combine_chunks().to_numpy().shape == (2, 400, 600, 3)
    assert out.schema.field("predictions").type == _detections_type()
    assert [len(cell) for cell in out["predictions"].to_pylist()] == [3, 3]


def test_a_batch_without_a_result_has_the_same_types():
    from sam2_blocks.hosts.ray import PipelineStage

    stage = PipelineStage(ROOT / "examples" / "points.yaml")
    out = stage({"image": ["none.jpg"]})
    assert out.schema.field("predictions").type == _detections_type()
    assert out["predictions"].to_pylist() == [None]


def test_an_output_without_a_type_is_refused():
    from sam2_blocks.errors import PipelineError

    embed = {"use": "sam2/embed@v1", "with": {"image": "$inputs.image"}}
    with pytest.raises(PipelineError, match=r"outputs\.e: has no type in a table\. Leave"):
        stage_of(embed, {"e": "$steps.step.embedding"})


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
    assert "none.jpg: no such file" in out["why"].to_pylist()[0]
    assert out["errors"].to_pylist() == [None]


# --- videos -----------------------------------------------------------------------------------

TRACK = {
    "pipeline_version": 1,
    "inputs": {"image": {"kind": "image"}, "boxes": {"kind": "object_detection_prediction"}},
    "steps": {
        "track": {
            "use": "sam2/track@v1",
            "with": {"image": "$inputs.image", "boxes": "$inputs.boxes", "model": "nano"},
        }
    },
    "outputs": {"tracks": "$steps.track.predictions"},
}
LEFT, RIGHT = [10.0, 10.0, 30.0, 40.0], [45.0, 12.0, 70.0, 50.0]


def frames(folder, counts):
    """Rows of frames, a PNG each, mixed and backwards; each video is prompted on its first."""
    from PIL import Image as Pil

    rows = []
    for video, count in counts.items():
        for number in range(1, count + 1):
            path = folder / f"{video}-{number}.png"
            Pil.fromarray(picture(number).pixels).save(path)
            boxes = [] if number > 1 else [LEFT] if video == "a" else [LEFT, RIGHT]
            rows.append(
                {"image": str(path), "boxes": json.dumps(boxes), "video": video, "frame": number}
            )
    return sorted(rows, key=lambda row: -row["frame"])


PROMPTED = {
    "pipeline_version": 1,
    "inputs": {"image": {"kind": "image"}},
    "steps": {
        "track": {
            "use": "sam2/track@v1",
            "with": {"image": "$inputs.image", "prompts": [{"box_xyxy": LEFT}], "model": "nano"},
        }
    },
    "outputs": {"tracks": "$steps.track.predictions", "new": "$steps.track.new"},
}


def tracked(row):
    return [mask["tracker_id"] for mask in row["tracks"]]


def test_each_video_of_a_data_set_is_followed_by_itself(cluster, tmp_path):
    from sam2_blocks.hosts.ray import map_videos

    counts = {"a": 3, "b": 4}
    rows = [{**row, "boxes": ""} for row in frames(tmp_path, counts)]
    data = ray.data.from_items(rows)
    found = map_videos(data, PROMPTED, concurrency=1, partitions=2).take_all()
    assert {row["errors"] for row in found} == {""}
    for video, count in counts.items():
        of_one = [row for row in found if row["video"] == video]
        assert [row["frame"] for row in of_one] == list(range(1, count + 1))
        assert [len(row["new"]) for row in of_one] == [1] + [0] * (count - 1)
        assert [tracked(row) for row in of_one] == [[1]] * count


def batch_of(rows):
    """What Ray hands to a stage."""
    return {name: np.array([row[name] for row in rows], object) for name in rows[0]}


def stage_of_videos(**options):
    from sam2_blocks.hosts.ray import VideoStage

    return VideoStage(TRACK, **options)


def batch_with_boxes(rows):
    batch = batch_of(rows)
    cells = np.empty(len(rows), object)
    cells[:] = [json.loads(row["boxes"]) for row in rows]
    return {**batch, "boxes": cells}


def test_frames_are_put_in_order_and_videos_kept_apart(tmp_path):
    rows = frames(tmp_path, {"a": 3, "b": 3})
    out = stage_of_videos()(batch_with_boxes(rows))
    assert out["errors"].to_pylist() == [""] * 6
    assert list(zip(out["video"].to_pylist(), out["frame"].to_pylist(), strict=True)) == [
        (video, number) for video in "ab" for number in (1, 2, 3)
    ]
    ids = [[mask["tracker_id"] for mask in cell] for cell in out["tracks"].to_pylist()]
    assert ids == [[1]] * 3 + [[1, 2]] * 3


def test_the_state_of_a_video_ends_with_its_rows(tmp_path):
    stage = stage_of_videos()
    rows = frames(tmp_path, {"b": 2})
    stage(batch_with_boxes(rows))
    again = stage(batch_with_boxes([{**row, "frame": row["frame"] + 2} for row in rows]))
    ids = [[mask["tracker_id"] for mask in cell] for cell in again["tracks"].to_pylist()]
    assert ids == [[1, 2]] * 2


def test_a_damaged_frame_is_an_error_and_its_video_goes_on(tmp_path):
    rows = frames(tmp_path, {"a": 3})
    (tmp_path / "a-2.png").write_bytes(b"no picture")
    out = stage_of_videos()(batch_with_boxes(rows))
    assert [bool(error) for error in out["errors"].to_pylist()] == [False, True, False]
    _, second, third = out["tracks"].to_pylist()
    assert second is None
    assert [mask["tracker_id"] for mask in third] == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "clip"}, r"lacks the columns \['video'\]; it has \['image', 'boxes', 'clip'"),
        ({"frame": "number"}, r"lacks the columns \['frame'\]"),
    ],
)
def test_columns_of_videos_are_named(tmp_path, change, message):
    from sam2_blocks.errors import Sam2BlocksError

    rows = [
        {change.get(name, name): value for name, value in row.items()}
        for row in frames(tmp_path, {"a": 1})
    ]
    with pytest.raises(Sam2BlocksError, match=message):
        stage_of_videos()(batch_with_boxes(rows))
    names = {f"{name}_column": renamed for name, renamed in change.items()}
    out = stage_of_videos(**names)(batch_with_boxes(rows))
    assert out["errors"].to_pylist() == [""]


def test_a_frame_needs_a_number(tmp_path):
    from sam2_blocks.errors import Sam2BlocksError

    rows = [{**row, "frame": None} for row in frames(tmp_path, {"a": 1})]
    with pytest.raises(Sam2BlocksError, match="'frame' wants the number of a frame, got None in"):
        stage_of_videos()(batch_with_boxes(rows))
