from __future__ import annotations

import pytest
import torch
from torch.torch_version import TorchVersion

from sam2_blocks.executor.device import packages
from sam2_blocks.executor.device.packages import (
    describe_target,
    find_package_problem,
    open_package,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def undescribed():
    describe_target.cache_clear()
    yield
    describe_target.cache_clear()


def test_packages_are_for_the_cpu_and_cuda():
    assert find_package_problem(CPU) == ""
    assert find_package_problem(torch.device("cuda", 1)) == ""
    assert "for CUDA and the CPU, not for 'mps'" in find_package_problem(torch.device("mps"))


def test_a_torch_that_opens_no_packages_is_named(monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.7.1+cpu"))
    assert "need torch 2.8 or later, and this is 2.7.1+cpu" in find_package_problem(CPU)


def test_a_torch_without_what_opens_packages_is_named(monkeypatch):
    monkeypatch.delattr(torch._C._aoti, "AOTIModelPackageLoader")
    assert "is built without what opens packages (AOTIModel" in find_package_problem(CPU)


def test_a_target_is_this_torch_on_this_processor(monkeypatch, tmp_path):
    here = describe_target(CPU)
    assert f"torch {torch.__version__}" in here
    assert describe_target(CPU) == here
    other = tmp_path / "cpuinfo"
    other.write_text("processor : 0\nflags : fpu sse2 of_another_processor\n")
    monkeypatch.setattr(packages, "CPU_FLAGS", other)
    describe_target.cache_clear()
    assert describe_target(CPU) != here
    monkeypatch.setattr(packages, "CPU_FLAGS", tmp_path / "missing")
    describe_target.cache_clear()
    assert f"torch {torch.__version__}" in describe_target(CPU)


def test_a_target_on_cuda_is_the_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    first, second = (describe_target(torch.device("cuda", index)) for index in (0, 1))
    assert first.endswith("card 0, 9.0")
    assert second != first


def test_what_is_no_package_is_refused():
    with pytest.raises(RuntimeError):
        open_package(b"no package", CPU)
