from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.engine.resources import Resources
from sam2_blocks.hosts import labelstudio
from sam2_blocks.testing import FakeExecutor
from tests.hosts.contract import check_host_masks
from tests.hosts.labelstudio.projects import ADDRESS, asked, click, rectangle
from tests.hosts.labelstudio.test_brush import decode


def drawn(prompt):
    """What a labeller does to say this."""
    boxes = [] if prompt.box_xyxy is None else [rectangle(*map(float, prompt.box_xyxy))]
    coords, labels = prompt.point_coords, prompt.point_labels
    points = [] if coords is None else zip(coords.tolist(), labels.tolist(), strict=True)
    return boxes + [click(x, y, positive=bool(label)) for (x, y), label in points]


def test_the_contract_of_all_hosts(connect):
    client = connect()

    def mask_of(image, prompt):
        body = asked(*drawn(prompt), picture=ADDRESS)
        [made] = client.post("/predict", json=body).json()["results"]
        [region] = made["result"]
        return decode(region["value"]["rle"], image.hw)[:, :, 3] > 0

    resources = Resources(dict.fromkeys(("sam2", "fake"), FakeExecutor))
    check_host_masks(mask_of, params={"model": "fake"}, resources=resources)

    def of_another(image, prompt):
        return ~mask_of(image, prompt)

    with pytest.raises(AssertionError, match="a box: the mask has"):
        check_host_masks(of_another, params={"model": "fake"}, resources=resources)


def test_the_contract_with_a_model(connect, nano_executor):
    from sam2_blocks.testing import run_block, sample_image
    from tests.service.conftest import fresh

    ours = fresh(nano_executor)
    client = connect(fresh(nano_executor))
    [made] = client.post("/predict", json=asked(click(8, 9))).json()["results"]
    inputs = {"image": sample_image(), "prompts": [{"point_coords": [[8, 9]]}]}
    found = run_block(
        "sam2/segment@v1", inputs, resources=Resources({"sam2": lambda *_, **__: ours})
    )
    rle = made["result"][0]["value"]["rle"]
    assert np.array_equal(decode(rle, (24, 32))[:, :, 3] > 0, found.outputs["predictions"].mask[0])


def test_the_report_names_every_block(plugins):
    report = labelstudio.report(plugins)
    assert report.title == "Label Studio"
    assert set(report.blocks) == set(plugins.manifests)
