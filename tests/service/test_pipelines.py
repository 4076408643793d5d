from __future__ import annotations

import asyncio
import base64
import gc
import io
import threading
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks import hookimpl
from sam2_blocks.errors import PipelineError
from sam2_blocks.masks.polygons import rles_to_polygons
from sam2_blocks.service import ServedModels, Service, ServiceSettings
from sam2_blocks.service.errors import (
    GivenUpError,
    ImageRefusedError,
    RequestError,
    TooLargeError,
    UnknownModelError,
    UnknownNameError,
)
from sam2_blocks.service.pipelines import PipelineRunner
from sam2_blocks.service.runs import Run
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


def drawing():
    drawing = document(
        use="draw/masks@v1",
        values={"image": "$inputs.image", "predictions": "$steps.masks.predictions"},
        outputs={"picture": "$steps.step.image"},
    )
    drawing["steps"]["masks"] = document()["steps"]["step"]
    return drawing


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
    picture_out = run(runner, drawing())["picture"]
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
    run_item, decode = narrow._run_item, narrow._service.images._decode

    async def decoding(*args):
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        return await decode(*args)

    def running(*args):
        nonlocal open_now
        answer = run_item(*args)
        open_now -= len(images)
        return answer

    monkeypatch.setattr(narrow._service.images, "_decode", decoding)
    monkeypatch.setattr(narrow, "_run_item", running)

    async def several():
        return await asyncio.gather(*(narrow.run(given, images) for _ in range(4)))

    assert len(asyncio.run(several())) == 4
    assert most == 2


# --- nobody waits any more --------------------------------------------------------------------


class Gated(FakeExecutor):
    """Stops in one of its calls until its gate is opened, and remembers the others."""

    def __init__(self, stop_in):
        super().__init__("nano")
        self.stop_in = stop_in
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.calls = []

    def embed(self, images):
        self.call("embed")
        return super().embed(images)

    def segment(self, items, **options):
        self.call("segment")
        return super().segment(items, **options)

    def propose_masks(self, *args, **options):
        self.call("propose_masks")
        return super().propose_masks(*args, **options)

    def call(self, name):
        self.calls.append(name)
        if name == self.stop_in:
            self.entered.set()
            assert self.gate.wait(120)


@contextmanager
def gated_runner(plugins, executor):
    service = Service(ServedModels({"nano": executor}), ServiceSettings(max_open_images=1))
    runner = PipelineRunner(service, plugins)
    yield runner
    runner.close()
    service.close()


def give_up(runner, executor, given):
    """Run a pipeline, give it up while it is in the gate; returns whether its place was held."""

    async def run():
        running = asyncio.create_task(runner.run(given, {"image": as_request(PICTURE)}))
        await asyncio.to_thread(executor.entered.wait, 120)
        running.cancel()
        await asyncio.sleep(0)
        held = runner._service.images._places.free == 0
        executor.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        return held, runner._service.images._places.free == 0

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("use", "stop_in", "calls"),
    [
        ("sam2/segment@v1", "embed", ["embed"]),
        ("sam2/automatic@v1", "propose_masks", ["embed", "propose_masks"]),
    ],
)
def test_a_run_that_is_given_up_calls_no_model_again(plugins, use, stop_in, calls):
    executor = Gated(stop_in)
    values = {"image": "$inputs.image"} if use == "sam2/automatic@v1" else None
    with gated_runner(plugins, executor) as runner:
        give_up(runner, executor, document(use=use, values=values))
    assert executor.calls == calls


def test_long_loops_of_every_step_ask_whether_anybody_waits(runner, monkeypatch):
    asked = []
    check = Run.check
    monkeypatch.setattr(Run, "check", lambda self: (asked.append(looking.get()), check(self)))
    looking = ContextVar("looking", default=False)

    def trace(*args, **options):
        token = looking.set(True)
        try:
            return rles_to_polygons(*args, **options)
        finally:
            looking.reset(token)

    monkeypatch.setattr("sam2_blocks.blocks.mask_polygons.rles_to_polygons", trace)
    given = document()
    given["steps"]["trace"] = {
        "use": "masks/polygons@v1",
        "with": {"predictions": "$steps.step.predictions"},
    }
    given["outputs"] = {"polygons": "$steps.trace.polygons"}
    assert run(runner, given)["polygons"]
    assert True in asked


class Recorder:
    def __init__(self):
        self.steps = []

    @hookimpl
    def before_step(self, step):
        self.steps.append(step.id)


def test_a_run_that_is_given_up_starts_no_other_step(plugins):
    recorder, executor = Recorder(), Gated("segment")
    plugins.manager.register(recorder)
    with gated_runner(plugins, executor) as runner:
        give_up(runner, executor, drawing())
    assert recorder.steps == ["masks"]


def test_hooks_of_plugins_hear_every_step(plugins, runner):
    recorder = Recorder()
    plugins.manager.register(recorder)
    run(runner, drawing())
    assert recorder.steps == ["masks", "step"]


def test_a_run_that_is_given_up_keeps_its_place_until_it_has_ended(plugins):
    executor = Gated("segment")
    with gated_runner(plugins, executor) as runner:
        assert give_up(runner, executor, document()) == (True, False)


def test_a_run_that_is_given_up_leaves_no_error_behind(plugins, caplog):
    executor = Gated("embed")
    with gated_runner(plugins, executor) as runner:
        give_up(runner, executor, document())
    gc.collect()
    assert caplog.records == []


def test_closing_ends_what_still_runs(plugins):
    class UntilGivenUp(FakeExecutor):
        entered = threading.Event()

        def embed(self, images):
            [run] = runner._runs
            self.entered.set()
            assert run._given_up.wait(120)
            return super().embed(images)

    executor = UntilGivenUp("nano")
    with gated_runner(plugins, executor) as runner:

        async def close():
            running = asyncio.create_task(runner.run(document(), {"image": as_request(PICTURE)}))
            await asyncio.to_thread(executor.entered.wait, 120)
            await asyncio.to_thread(runner.close)
            await running

        with pytest.raises(GivenUpError, match=r"step 'step' .*: nobody waits for the answer"):
            asyncio.run(close())


# --- limits -----------------------------------------------------------------------------------


@pytest.fixture
def make_runner(make_service, plugins):
    """``make_runner(setting=value)``: a runner beside a service with these limits."""
    runners = []

    def make(**settings):
        runners.append(PipelineRunner(make_service(FakeExecutor("nano"), **settings), plugins))
        return runners[-1]

    yield make
    for runner in runners:
        runner.close()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("inputs", "there are 5 inputs, the limit is 4"),
        ("outputs", "there are 5 outputs, the limit is 4"),
        ("steps", "there are 5 steps, the limit is 4"),
        ("with", "there are 5 values of step 'step', the limit is 4"),
    ],
)
def test_a_pipeline_with_too_many_parts_is_refused(make_runner, part, message):
    wrong = document()
    parts = wrong["steps"]["step"]["with"] if part == "with" else wrong[part]
    parts.update({f"more{number}": None for number in range(5 - len(parts))})
    with pytest.raises(RequestError, match=message) as caught:
        run(make_runner(max_pipeline_parts=4), wrong)
    assert caught.value.status == 422


def test_a_step_with_too_many_prompts_is_refused(make_runner):
    runner = make_runner(max_prompts=2)
    assert len(run(runner, boxes=[[1, 2, 21, 32]] * 2)["predictions"]) == 2
    with pytest.raises(TooLargeError, match=r"step 'step' .*: there are 3 prompts, the limit is 2"):
        run(runner, boxes=[[1, 2, 21, 32]] * 3)


def test_prompts_are_counted_over_all_tiles_of_a_step(make_runner):
    tiled = document(values={"image": "$inputs.image", "boxes": "$inputs.boxes", "tile_px": 4})
    boxes = [[x, y, x + 1, y + 1] for x in range(0, 20, 4) for y in range(0, 20, 4)]
    assert len(run(make_runner(max_prompts=25), tiled, boxes=boxes)["predictions"]) == 25
    with pytest.raises(TooLargeError, match="prompts, the limit is 24"):
        run(make_runner(max_prompts=24), tiled, boxes=boxes)


def test_a_prompt_with_too_many_points_is_refused(make_runner):
    prompts = [{"point_coords": [[1, 2]] * 4}]
    pointing = document(values={"image": "$inputs.image", "prompts": prompts})
    assert run(make_runner(max_points=4), pointing)["predictions"]
    with pytest.raises(TooLargeError, match="a prompt has 4 points, the limit is 3"):
        run(make_runner(max_points=3), pointing)


def test_an_answer_that_is_too_large_is_refused(make_runner):
    with pytest.raises(TooLargeError, match="output 'picture' makes the answer larger than 100 b"):
        run(make_runner(max_answer_bytes=100), drawing())


# --- models -----------------------------------------------------------------------------------


def test_a_step_that_names_no_model_gets_the_services_default(make_service, plugins):
    executor = FakeExecutor("other")
    service = Service(ServedModels({"other": executor, "second": FakeExecutor("second")}))
    runner = PipelineRunner(service, plugins)
    assert run(runner)["predictions"]
    assert len(executor.embedded) == 1
    values = {"image": "$inputs.image", "boxes": "$inputs.boxes", "model": "nano"}
    with pytest.raises(UnknownModelError, match="there is no model 'nano' here"):
        run(runner, document(values=values))
    runner.close()
    service.close()


# --- refusals ---------------------------------------------------------------------------------


def test_all_mistakes_of_a_pipeline_are_reported(runner):
    with pytest.raises(PipelineError, match="Did you mean 'sam2/segment@v1'"):
        run(runner, document(use="sam2/segmnt@v1"))
    with pytest.raises(PipelineError, match=r"no input is called 'imag'. Did you mean 'image'"):
        run(runner, imag=1)


@pytest.mark.parametrize("value", ["/etc/passwd", "cat.jpg", {"type": "file"}, None, 3])
def test_an_image_is_never_read_from_a_path(runner, value):
    with pytest.raises(RequestError, match=r"^inputs.image: wants an image such as"):
        run(runner, image=value)


def test_an_image_that_may_be_left_out_may_be_null(runner):
    inputs = {**document()["inputs"], "other": {"kind": "image", "default": None}}
    assert run(runner, document(inputs=inputs), other=None)["predictions"]
    assert run(runner, document(inputs=inputs), other=as_request(PICTURE))["predictions"]


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
    with pytest.raises(RequestError, match=r"step 'step': prompt 0.*: box .* wholly outside"):
        run(
            runner,
            document(
                values={
                    "image": "$inputs.image",
                    "boxes": "$inputs.boxes",
                    "on_bad_prompt": "error",
                }
            ),
            boxes=[[100, 100, 120, 120]],
        )


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


def test_both_suffixes_of_yaml_are_served_and_may_not_clash(make_service, plugins, tmp_path):
    from ruamel.yaml import YAML

    service = make_service(executor=FakeExecutor("nano"))
    YAML().dump(document(), tmp_path / "masks.yml")
    (tmp_path / "notes.txt").write_text("no pipeline")
    runner = PipelineRunner(service, plugins, tmp_path)
    assert runner.names == ["masks"]
    runner.close()
    YAML().dump(document(), tmp_path / "masks.yaml")
    with pytest.raises(PipelineError, match=r"masks\.yml: masks\.yaml has the same name; rename"):
        PipelineRunner(service, plugins, tmp_path)


def test_a_list_of_images_is_refused_since_its_texts_would_be_paths_here(runner):
    listed = document()
    listed["inputs"]["more"] = {"kind": "list of image"}
    with pytest.raises(RequestError, match=r"inputs\.more: a list of image cannot be sent"):
        run(runner, listed, more=["/etc/passwd"])
