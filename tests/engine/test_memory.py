"""A budget of a device's memory, with models that say what they hold and a device that is none."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest

from sam2_blocks.engine.memory import BUDGET_VARIABLE, default_budget, nbytes_of
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import Sam2BlocksError
from sam2_blocks.testing import FakeDetector, FakeExecutor
from sam2_blocks.values import ExecutorSpec


class Sized(FakeExecutor):
    """A model whose name says its device and its bytes, such as ``a-gpu-40``."""

    def __init__(self, model, **_):
        super().__init__(model)
        _, device, size = model.split("-")
        self.spec = ExecutorSpec(model, device, "float32", "sam2")
        self.nbytes = int(size)


@pytest.fixture
def loaded():
    """Names of the models in the order they were loaded."""
    return []


@pytest.fixture
def resources(loaded):
    """A device ``gpu`` with room for 100 bytes; the CPU has no bound."""

    def load(model, **options):
        loaded.append(model)
        return Sized(model)

    return Resources({"sam2": load}, budget_of={"gpu": 100}.get)


def use(resources, *models):
    for model in models:
        resources.executor(model)


def test_what_fits_stays(resources, loaded):
    use(resources, "a-gpu-40", "b-gpu-60", "a-gpu-40", "b-gpu-60")
    assert loaded == ["a-gpu-40", "b-gpu-60"]


def test_the_model_used_the_longest_ago_is_given_up(resources, loaded):
    use(resources, "a-gpu-40", "b-gpu-40", "a-gpu-40", "c-gpu-40")
    assert loaded == ["a-gpu-40", "b-gpu-40", "c-gpu-40"]
    use(resources, "a-gpu-40", "c-gpu-40")
    assert len(loaded) == 3
    use(resources, "b-gpu-40")
    assert loaded[3:] == ["b-gpu-40"]


def test_what_is_given_up_leaves_the_memory(resources):
    held = weakref.ref(resources.executor("a-gpu-40"))
    use(resources, "b-gpu-90")
    gc.collect()
    assert held() is None


def test_who_holds_a_model_goes_on_and_nobody_loads_it_again(resources, loaded):
    mine = resources.executor("a-gpu-40")
    use(resources, "b-gpu-90")
    assert resources.executor("a-gpu-40") is mine
    assert resources.executor("a-gpu-40", device="gpu", dtype="float32") is mine
    assert loaded == ["a-gpu-40", "b-gpu-90"]


def test_a_model_larger_than_the_budget_is_there_alone(resources, loaded):
    use(resources, "a-gpu-40", "b-gpu-500", "b-gpu-500")
    assert loaded == ["a-gpu-40", "b-gpu-500"]
    use(resources, "a-gpu-40")
    assert loaded[2:] == ["a-gpu-40"]


def test_devices_have_budgets_of_their_own(resources, loaded):
    use(resources, "a-gpu-90", "b-cpu-900", "c-cpu-900", "a-gpu-90", "b-cpu-900")
    assert loaded == ["a-gpu-90", "b-cpu-900", "c-cpu-900"]


def test_a_detector_and_sam_2_share_one_budget():
    """Two families, one device."""
    made = []

    class Detector(FakeDetector):
        nbytes = 70

        def __init__(self, model, **_):
            super().__init__(model)
            made.append(model)

    resources = Resources({"sam2": Sized, "transformers": Detector}, budget_of={"cpu": 100}.get)
    resources.loaded("transformers:detr")
    use(resources, "a-cpu-50")  # 120 bytes: the detector goes
    resources.loaded("transformers:detr")
    assert len(made) == 2


def test_a_model_that_does_not_say_what_it_holds_is_never_given_up(loaded):
    def load(model, **options):
        loaded.append(model)
        return FakeExecutor(model)

    resources = Resources({"sam2": load}, budget_of=lambda device: 1)
    use(resources, "a", "b", "a", "b")
    assert loaded == ["a", "b"]


def on(device, device_nbytes=None):
    """A model on a device that has so many bytes."""
    return SimpleNamespace(
        spec=ExecutorSpec("m", device, "float32", "sam2"), device_nbytes=device_nbytes
    )


def test_the_environment_says_the_budget_of_accelerators(monkeypatch):
    monkeypatch.setenv(BUDGET_VARIABLE, "300")
    assert default_budget(on("cuda:0", 1000)) == 300 * 2**20
    assert default_budget(on("cpu")) is None
    monkeypatch.setenv(BUDGET_VARIABLE, "much")
    with pytest.raises(Sam2BlocksError, match="SAM2_BLOCKS_MODEL_MEMORY_MB='much': wants a number"):
        default_budget(on("cuda:0"))


def test_without_it_models_take_half_of_the_device(monkeypatch):
    monkeypatch.delenv(BUDGET_VARIABLE, raising=False)
    assert default_budget(on("cuda:0", 1000)) == 500
    assert default_budget(on("mps")) is None
    assert default_budget(FakeExecutor("of a plugin that does not say")) is None


def test_our_own_models_say_what_they_hold():
    resources = Resources({"sam2": _load_nano})
    assert nbytes_of(resources.executor("nano")) > 20 * 2**20  # 6 million parameters of 4 bytes


def _load_nano(model, **options):
    from sam2_blocks import load_executor

    return load_executor(model, device="cpu")
