from __future__ import annotations

import asyncio
import base64
import io

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.errors import PipelineError
from sam2_blocks.service.errors import (
    ImageRefusedError,
    RequestError,
    TooLargeError,
    UnknownModelError,
    UnknownNameError,
)
from sam2_blocks.service.pipelines import PipelineRunner
from sam2_blocks.testing import FakeExecutor
from tests.service.conftest import as_request, picture

PICTURE = picture()


def document(*, use="sam2/segment@v1", values=None, outputs=None, inputs=None):
    values = {"image": "$inputs.image", "boxes": "$inputs.boxes"} if values is None else values
    return {
        "pipeline_version": 1,
        "inputs": inputs
        or {
            "image": {"kind": "image"},
            "boxes": {"kind": "object_detection_prediction", "default": [[1, 2, 21, 32]]},
        },
        "steps": {"step": {"use": use, "with": values}},
        "outputs": outputs or {"predictions": "$steps.step.predictions"},
    }


@pytest.fixture
def runner(make_service, plugins):
    runner = PipelineRunner(make_service(executor=FakeExecutor("nano")), plugins)
    yield runner
    runner.close()


def run(runner, given=None, **inputs):
    inputs.setdefault("image", as_request(PICTURE))
    return asyncio.run(runner.run(given or document(), inputs))


def test_detections_come_back_as_rows(runner):
    [row] = run(runner)["predictions"]
    assert row["box_xyxy"] == [1, 2, 20, 31]
    assert row["segmentation"]["size"] == [60, 80]


def test_images_come_back_as_png(runner):
    drawing = document(
        use="draw/masks@v1",
        values={"image": "$inputs.image", "predictions": "$steps.masks.predictions"},
        outputs={"picture": "$steps.step.image"},
    )
    drawing["steps"]["masks"] = document()["steps"]["step"]
    picture_out = run(runner, drawing)["picture"]
    assert picture_out["type"] == "base64"
    with Pil.open(io.BytesIO(base64.b64decode(picture_out["value"]))) as png:
        assert np.asarray(png).shape == (60, 80, 3)


@pytest.fixture
def narrow(make_service, plugins):
    """A runner beside a service that lets two images be open."""
    service = make_service(executor=FakeExecutor("nano"), max_open_images=2)
    runner = PipelineRunner(service, plugins)
    yield runner
    runner.close()


def with_images(count):
    names = ["image", *(f"image{number}" for number in range(1, count))]
    return document(inputs={**document()["inputs"], **{n: {"kind": "image"} for n in names}}), {
        name: as_request(PICTURE) for name in names
    }


def test_a_pipeline_with_more_images_than_may_be_open_is_refused(narrow):
    given, images = with_images(2)
    assert run(narrow, given, **images)["predictions"]
    given, images = with_images(3)
    with pytest.raises(TooLargeError, match=r"there are 3 images, the limit is 2\."):
        run(narrow, given, **images)


def test_pipelines_wait_until_their_images_may_be_open(narrow, monkeypatch):
    given, images = with_images(2)
    open_now, most = 0, 0
    run_item, read_image = narrow._run_item, narrow._service.read_image

    async def reading(*args):
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        return await read_image(*args)

    def running(pipeline, values):
        nonlocal open_now
        answer = run_item(pipeline, values)
        open_now -= len(images)
        return answer

    monkeypatch.setattr(narrow._service, "read_image", reading)
    monkeypatch.setattr(narrow, "_run_item", running)

    async def several():
        return await asyncio.gather(*(narrow.run(given, images) for _ in range(4)))

    assert len(asyncio.run(several())) == 4
    assert most == 2


def test_all_mistakes_of_a_pipeline_are_reported(runner):
    with pytest.raises(PipelineError, match="Did you mean 'sam2/segment@v1'"):
        run(runner, document(use="sam2/segmnt@v1"))
    with pytest.raises(PipelineError, match=r"no input is called 'imag'. Did you mean 'image'"):
        run(runner, imag=1)


@pytest.mark.parametrize("value", ["/etc/passwd", "cat.jpg", {"type": "file"}, None, 3])
def test_an_image_is_never_read_from_a_path(runner, value):
    with pytest.raises(RequestError, match=r"^inputs.image: wants an image such as"):
        run(runner, image=value)


def test_an_image_that_cannot_be_read_is_named(runner):
    with pytest.raises(ImageRefusedError, match=r"^inputs.image: is not base64"):
        run(runner, image={"type": "base64", "value": "%"})


def test_blocks_that_touch_files_are_refused(runner):
    reading = document(
        use="detections/load@v1",
        values={"image": "$inputs.image", "path": "/etc/passwd"},
        outputs={"boxes": "$steps.step.detections"},
    )
    with pytest.raises(RequestError, match="detections/load@v1 touches files of this machine"):
        run(runner, reading)


def test_models_that_are_not_served_are_refused(runner):
    values = {"image": "$inputs.image", "boxes": "$inputs.boxes", "model": "hiera_large"}
    with pytest.raises(UnknownModelError, match="there is no model 'hiera_large' here"):
        run(runner, document(values=values))


def test_an_output_that_json_cannot_say_is_refused(runner):
    embedding = document(
        use="sam2/embed@v1",
        values={"image": "$inputs.image"},
        outputs={"embedding": "$steps.step.embedding"},
    )
    with pytest.raises(RequestError, match="output 'embedding' has no form in JSON"):
        run(runner, embedding)


def test_a_step_that_fails_says_which(runner):
    with pytest.raises(RequestError, match=r"step 'step': prompt 0: box .* wholly outside"):
        run(runner, boxes=[[100, 100, 120, 120]])


def test_pipelines_of_the_operator_run_by_name(make_service, plugins, tmp_path):
    from ruamel.yaml import YAML

    with (tmp_path / "masks.yaml").open("w") as file:
        YAML().dump(document(), file)
    service = make_service(executor=FakeExecutor("nano"))
    runner = PipelineRunner(service, plugins, tmp_path)
    assert runner.names == ["masks"]
    inputs = {"image": as_request(PICTURE)}
    assert len(asyncio.run(runner.run_named("masks", inputs))["predictions"]) == 1
    with pytest.raises(UnknownNameError, match=r"no pipeline 'mask' here. Did you mean 'masks'"):
        asyncio.run(runner.run_named("mask", inputs))
    runner.close()
