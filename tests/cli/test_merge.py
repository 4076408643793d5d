from __future__ import annotations

import json

from sam2_blocks.cli import options
from tests.cli.conftest import QUICKSTART


def test_shards_of_a_table_become_one_coco_file(call, folder, tmp_path):
    rows = [{"id": f"n{n}", "image": str(folder / "a.jpg")} for n in range(3)]
    table = tmp_path / "t.jsonl"
    boxes = json.loads((folder / "a.json").read_text())
    rows = [{**row, "boxes": boxes["detections"]} for row in rows]
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(
        """
pipeline_version: 1
inputs: {image: {kind: image}, boxes: {kind: object_detection_prediction}}
steps:
  find: {use: sam2/segment@v1, with: {image: $inputs.image, boxes: $inputs.boxes}}
outputs: {found: $steps.find.predictions}
"""
    )
    target = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        code, _, err = call("run", pipeline, "-i", table, "-o", target, "--shard", shard)
        assert code == 0, err
    code, out, err = call("merge", target, "--to", "coco")
    assert code == 0, err
    assert "3 items in" in out
    coco = json.loads((target / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["n0", "n1", "n2"]
    assert len(coco["annotations"]) == 3 * len(boxes["detections"])


def test_failures_are_counted_and_missing_shards_named(call, folder, tmp_path):
    target = tmp_path / "out"
    arguments = ("run", QUICKSTART, "-i", folder, "-o", target, "--format", "parquet")
    assert call(*arguments)[0] == options.ITEMS_FAILED
    _, out, _ = call("merge", target, "--to", "parquet")
    assert "2 items in" in out
    assert "1 failed, see errors-" in out
    code, _, err = call("merge", tmp_path, "--to", "coco")
    assert code == options.WRONG_INPUT
    assert "holds no parts" in err
    code, _, err = call(*arguments, "--shard", "3/2")
    assert code == options.WRONG_INPUT
    assert "--shard wants i/n" in err
