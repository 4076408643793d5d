from __future__ import annotations

from sam2_blocks.hosts import ray


def test_the_report_leaves_out_what_writes_files(plugins):
    report = ray.report(plugins)
    assert {"sam2/segment@v1", "flow/first@v1", "detections/load@v1"} <= set(report.blocks)
    assert {block for block in report.left_out if not block.startswith("export/")} == set()
    assert "write the columns" in report.left_out["export/coco@v1"]
