from __future__ import annotations

import pytest

from sam2_blocks.engine.qualified import qualify
from sam2_blocks.engine.resources import Resources
from sam2_blocks.executors import Executor, MaskProposer, Remembering, WarmsUp
from sam2_blocks.options import AutomaticSettings
from sam2_blocks.testing import FakeExecutor, sample_embedding, sample_image
from sam2_blocks.values import ExecutorSpec, PromptSet

BOX = PromptSet.from_boxes([[2, 3, 12, 15]])


class Nameless(FakeExecutor):
    """Leaves out its family, and looks closely at whose embeddings it gets."""

    def __init__(self, model, **_):
        super().__init__()
        self.spec = ExecutorSpec("base", "cpu", "float32")
        self.warm = False

    def segment(self, items, **options):
        assert all(embedding.spec == self.spec for embedding, _ in items)
        return super().segment(items, **options)

    def propose_masks(self, embedding, *arguments, **options):
        assert embedding.spec == self.spec
        return super().propose_masks(embedding, *arguments, **options)

    def warm_up(self):
        self.warm = True


def test_two_families_whose_models_share_a_name_never_answer_for_each_other():
    class One(Nameless):
        pass

    class Two(Nameless):
        pass

    resources = Resources({"sam2": FakeExecutor, "one": One, "two": Two})
    embeddings = {}
    for family in ("one", "two"):
        executor = resources.executor(f"{family}:base")
        assert executor.spec.full_name == f"{family}:base"
        [embeddings[family]] = executor.embed([sample_image()])
    for family, embedding in embeddings.items():
        maker = resources.executor_of(embedding)
        assert maker is resources.executor(f"{family}:base")
        assert len(maker.segment([(embedding, BOX)])) == 1
        assert len(maker.propose_masks(embedding, [[3, 4]], AutomaticSettings())) == 1
    assert len({embedding.spec for embedding in embeddings.values()}) == 2


def test_a_model_that_names_its_family_is_left_as_it_is():
    executor = FakeExecutor("fake:a")
    assert qualify(executor, "fake") is executor


def test_abilities_are_those_of_the_model():
    wrapped = qualify(Nameless("x"), "mine")
    abilities = (Executor, MaskProposer, WarmsUp, Remembering)
    assert [isinstance(wrapped, ability) for ability in abilities] == [True, True, True, False]
    wrapped.warm_up()
    assert wrapped.warm


def test_what_another_made_is_still_refused():
    wrapped = qualify(Nameless("x"), "mine")
    other = sample_embedding(sample_image(), ExecutorSpec("other", "cpu", "float32"))
    with pytest.raises(AssertionError):
        wrapped.segment([(other, BOX)])
