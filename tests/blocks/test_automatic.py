from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from sam2_blocks.blocks.automatic import Automatic
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import StepError
from sam2_blocks.options import AutomaticSettings, CropSettings
from sam2_blocks.testing import (
    FakeExecutor,
    run_block,
    sample_image,
)
from sam2_blocks.values import ExecutorSpec, Image


def test_automatic_masks_say_where_they_come_from(run_one_step):
    image = sample_image()
    found = run_one_step("sam2/automatic@v1", {"image": image}, {"points_per_side": 2})
    detections = found.outputs["predictions"]
    assert detections.data["prompt_index"].tolist() == [0, 1, 2, 3]
    assert detections.xyxy[:, :2].tolist() == [[6, 4], [22, 4], [6, 16], [22, 16]]
    assert detections.data["stability_score"].tolist() == [1, 1, 1, 1]
    assert set(detections.data["parent_id"]) == {image.id}


def test_automatic_takes_pictures_and_embeddings_mixed(plugins):
    executor = FakeExecutor()
    images = [sample_image(f"{index}.png") for index in range(3)]
    [embedding] = executor.embed(images[1:2])
    block = Automatic(Resources({"sam2": lambda *_, **__: executor}))
    params = {"points_per_side": 1, "model": "fake", "device": "auto", "dtype": "auto"}
    params |= {"backend": "auto", "input_px": 0}
    settings = asdict(AutomaticSettings()) | asdict(CropSettings()) | params
    items = [SimpleNamespace(image=image, embedding=None, **settings) for image in images]
    items[1] = SimpleNamespace(image=None, embedding=embedding, **settings)
    parents = [result["predictions"].data["parent_id"][0] for result in block.run(items)]
    assert parents == ["0.png", "1.png", "2.png"]


def test_automatic_looks_into_crops_of_a_picture(run_one_step):
    image = Image(np.zeros((200, 300, 3), np.uint8), "large.png")
    params = {"points_per_side": 2, "crop_n_layers": 1}
    found = run_one_step("sam2/automatic@v1", {"image": image}, params).outputs["predictions"]
    assert len(found) == 16
    assert found.mask.shape == (16, 200, 300)
    assert set(found.data["parent_id"]) == {"large.png"}


@pytest.mark.parametrize(
    ("of", "params", "message"),
    [
        ("embedding", {}, "crop_n_layers = 1 cuts the picture itself, and got its embedding"),
        ("image", {"crop_n_points_downscale_factor": 4}, "no points are left for the crops of"),
    ],
)
def test_automatic_says_why_it_cannot_cut(run_one_step, of, params, message):
    image = sample_image()
    value = image if of == "image" else FakeExecutor().embed([image])[0]
    params = {"points_per_side": 2, "crop_n_layers": 1, **params}
    result = run_one_step("sam2/automatic@v1", {of: value}, params)
    assert message in result.errors[0].message


def test_automatic_needs_an_executor_that_can(plugins):
    class Plain:
        def __init__(self, model, *, device, dtype):
            self.spec = ExecutorSpec(model, "cpu", "float32")

        embed, segment = FakeExecutor.embed, FakeExecutor.segment
        embedded: ClassVar[list[str]] = []

    resources = Resources({"sam2": Plain})
    with pytest.raises(StepError, match="'nano' cannot segment without prompts"):
        run_block(
            "sam2/automatic@v1", {"image": sample_image()}, plugins=plugins, resources=resources
        )
