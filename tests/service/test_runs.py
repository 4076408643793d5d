from __future__ import annotations

import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.executors import MaskProposer, require
from sam2_blocks.options import AutomaticSettings
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.service.errors import GivenUpError
from sam2_blocks.service.runs import Run, RunModels
from sam2_blocks.testing import FakeExecutor, sample_embedding, sample_image
from sam2_blocks.values import PromptSet


class Plain:
    """An executor that needs prompts, and can do something that no other can."""

    spec = FakeExecutor("plain").spec
    colour = "red"

    def embed(self, images):
        return [sample_embedding(image, self.spec) for image in images]

    segment = FakeExecutor.segment


def models_of_a_run(executor):
    run = Run(ServiceSettings())
    return run, RunModels(ServedModels({executor.spec.model: executor}), run)


def test_a_model_does_in_a_run_what_it_does_elsewhere():
    executor = FakeExecutor("nano")
    _, models = models_of_a_run(executor)
    [embedding] = models.executor("nano").embed([sample_image()])
    prompts = PromptSet.from_boxes([[2, 3, 12, 15]])
    [mask] = models.executor_of(embedding).segment([(embedding, prompts)], mask_threshold=1.0)
    assert mask.mask_box_xyxy.tolist() == [[2, 3, 11, 14]]


def test_a_model_can_in_a_run_what_runs_may_use_and_no_more():
    _, models = models_of_a_run(Plain())
    executor = models.executor("plain")
    with pytest.raises(AttributeError, match="'colour' of model 'plain' is nothing that a run"):
        _ = executor.colour
    with pytest.raises(ModelError, match="cannot segment without prompts"):
        require(executor, MaskProposer)
    _, models = models_of_a_run(FakeExecutor("nano"))
    assert require(models.executor("nano"), MaskProposer)


def test_a_model_is_not_called_once_a_run_is_given_up():
    run, models = models_of_a_run(FakeExecutor("nano"))
    executor, image = models.executor("nano"), sample_image()
    [embedding] = executor.embed([image])
    run.give_up()
    for call in (
        lambda: executor.embed([image]),
        lambda: executor.segment([(embedding, PromptSet())]),
        lambda: executor.propose_masks(embedding, [[1, 2]], AutomaticSettings()),
    ):
        with pytest.raises(GivenUpError, match="nobody waits for the answer any more"):
            call()


def test_two_runs_never_write_one_file():
    models = ServedModels({"nano": FakeExecutor("nano")})
    first, second = (RunModels(models, Run(ServiceSettings())) for _ in range(2))
    writers = Plain(), Plain()
    first.files.claim("coco.json", writers[0])
    with pytest.raises(ValueError, match=r"another step or output writes coco\.json"):
        second.files.claim("coco.json", writers[1])
