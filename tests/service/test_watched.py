from __future__ import annotations

import inspect

import numpy as np
import pytest

from sam2_blocks import executors
from sam2_blocks.executors import Executor, Loaded, MaskProposer
from sam2_blocks.masks.rle import mask_to_rle
from sam2_blocks.service.errors import GivenUpError
from sam2_blocks.service.runs import Run
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.service.watched import PARTS, watched
from sam2_blocks.testing import FakeDetector, FakeExecutor, sample_image
from sam2_blocks.values import PromptSet

OF_OPERATORS = {
    "ExpectsPictures",
    *("WarmsUp", "CountsCache", "ForgetsUnused", "HoldsMemory", "KnowsDevice", "Loaded"),
    *("Tracker", "TrackSession"),
}
"""Abilities that no run gets: add one to `PARTS`, with its limits, or here."""
NO_ABILITY = {"TrackSession"}
"""What a call of an ability returns; it is watched there."""


class Gifted(FakeExecutor, FakeDetector):
    """Can do something that nobody thought of."""

    def dream(self):
        return "for hours"

    def find(self, key):
        return None

    def warm_up(self):
        raise AssertionError("called on behalf of a stranger")


def test_every_ability_is_watched_or_kept_from_runs():
    abilities = {
        name
        for name, found in vars(executors).items()
        if inspect.isclass(found)
        and found.__module__ == executors.__name__
        and getattr(found, "_is_protocol", False)
    }
    assert abilities == {ability.__name__ for ability in PARTS} | OF_OPERATORS | NO_ABILITY


def test_an_ability_that_is_not_listed_does_not_exist_for_a_run():
    model = watched(Gifted(), Run(ServiceSettings()))
    for name in ("dream", "warm_up", "embedded", "_anything"):
        assert not hasattr(model, name)
    with pytest.raises(AttributeError, match="'dream' of model 'fake' is nothing that a run with"):
        model.dream()


def test_each_listed_ability_is_there_if_the_model_has_it():
    model = watched(Gifted(), Run(ServiceSettings()))
    assert isinstance(model, Loaded)
    assert all(isinstance(model, ability) for ability in PARTS)

    class Plain:
        spec = FakeExecutor().spec
        embed = segment = lambda self, *_, **__: []

    plain = watched(Plain(), Run(ServiceSettings()))
    assert isinstance(plain, Executor)
    assert not isinstance(plain, MaskProposer)


@pytest.mark.parametrize("method", ["embed", "segment", "propose_masks", "find"])
def test_no_call_begins_once_nobody_waits(method):
    run = Run(ServiceSettings())
    model = watched(Gifted(), run)
    run.give_up()
    arguments = {"propose_masks": (None, [], None), "find": ("key",)}.get(method, ([],))
    with pytest.raises(GivenUpError):
        getattr(model, method)(*arguments)


def test_steps_of_a_session_are_looked_at_and_its_prompts_counted():
    """A deadline ends tracking between two frames, and too many prompts start nothing."""
    run = Watcher()
    session = watched(FakeExecutor(), run).track()
    image, boxes = sample_image(), PromptSet.from_boxes([[1, 1, 5, 5], [2, 2, 9, 9]])
    session.step(image, boxes)
    session.prompt([mask_to_rle(np.ones(image.hw, bool))])
    session.correct(1, boxes.prompts[0])
    assert session.tracker_ids == (1, 2, 3)
    assert run.counts == [2, 1, 1]
    run.over = True
    with pytest.raises(GivenUpError):
        session.step(image)
    session.remove(1)
    assert session.tracker_ids == (2, 3)


class Watcher:
    """Counts the prompts of each call, until time is over."""

    def __init__(self):
        self.counts, self.over = [], False

    def check(self):
        if self.over:
            raise GivenUpError("time is over")

    def check_prompts(self, prompt_sets):
        self.counts += [len(prompts) for prompts in prompt_sets]


def test_detectors_answer_a_run_until_nobody_waits_for_it():
    detector, run = FakeDetector(), Run(ServiceSettings())
    model = watched(detector, run)
    assert model.class_names == detector.class_names
    assert len(model.detect([sample_image()], threshold=0.1)[0]) == 3
    assert len(model.ground([sample_image()], ["a"], threshold=0.1, text_threshold=0.1)[0]) == 1
    run.give_up()
    for call in (
        lambda: model.detect([sample_image()], threshold=0.1),
        lambda: model.ground([sample_image()], ["a"], threshold=0.1, text_threshold=0.1),
    ):
        with pytest.raises(GivenUpError):
            call()
    assert len(detector.looked_at) == 2
