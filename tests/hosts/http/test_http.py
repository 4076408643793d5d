from __future__ import annotations

import pytest

from sam2_blocks.engine.resources import Resources
from sam2_blocks.hosts import http
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.testing import FakeExecutor
from tests.hosts.contract import check_host_masks
from tests.service.conftest import as_request, box, point


def test_the_contract_of_all_hosts(connect):
    client = connect()

    def mask_of(image, prompt):
        given = {} if prompt.box_xyxy is None else box(*map(float, prompt.box_xyxy))
        if prompt.point_coords is not None:
            points = zip(prompt.point_coords.tolist(), prompt.point_labels.tolist(), strict=True)
            given["points"] = [point(x, y, positive=bool(label)) for (x, y), label in points]
        body = {"image": as_request(image), "prompts": [given], "format": "rle"}
        [row] = client.post("/sam2/segment_image", json=body).json()["predictions"]
        return rle_to_mask(coco_to_rle(row["masks"]))

    resources = Resources(dict.fromkeys(("sam2", "fake"), FakeExecutor))
    check_host_masks(mask_of, params={"model": "fake"}, resources=resources)


def test_the_report_leaves_out_what_strangers_may_not_use(plugins):
    report = http.report(plugins)
    assert report.blocks["sam2/segment@v1"] == "sam2/segment@v1"
    assert "flow/first@v1" in report.blocks
    assert "on behalf of strangers" in report.left_out["export/coco@v1"]


def test_there_is_no_other_name():
    with pytest.raises(AttributeError, match="has no attribute 'sreve'"):
        _ = http.sreve
