from __future__ import annotations

from typing import Protocol, runtime_checkable

import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.executors import Executor, KnownModel, MaskProposer, Remembering, require
from sam2_blocks.testing import FakeExecutor
from sam2_blocks.values import ExecutorSpec, full_name


@runtime_checkable
class Counter(Protocol):
    """An ability that a plugin thought of."""

    def count(self, image): ...


class CountsOnly:
    spec = ExecutorSpec("tally", "cpu", "float32", "mine")

    def count(self, image):
        return 3


def test_a_model_is_returned_as_what_it_can_do():
    executor = FakeExecutor()
    assert require(executor, MaskProposer) is executor
    assert require(CountsOnly(), Counter).count(None) == 3


@pytest.mark.parametrize(
    ("model", "ability", "message"),
    [
        (CountsOnly(), Executor, "'mine:tally' cannot embed and segment: it has no embed, segment"),
        (FakeExecutor(), Remembering, "'fake' keeps no embeddings: it has no find"),
        (FakeExecutor(), Counter, r"'fake' is no Counter: it has no count\. Use another model"),
    ],
)
def test_a_model_that_lacks_an_ability_says_which(model, ability, message):
    with pytest.raises(ModelError, match=message):
        require(model, ability)


def test_a_full_name_has_its_prefix_once():
    assert full_name("nano", "sam2") == full_name("sam2:nano", "sam2") == "nano"
    assert full_name("base", "mine") == full_name("mine:base", "mine") == "mine:base"
    assert ExecutorSpec("base", "cpu", "float32", "mine").full_name == "mine:base"


def test_a_download_without_a_sum_is_refused():
    with pytest.raises(ValueError, match="'mine:a' has a url and no sha256"):
        KnownModel(name="a", family="mine", url="https://example.org/a.pt")
