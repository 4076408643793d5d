from __future__ import annotations

import re

import pytest
import torch

from sam2_blocks.executor.device import found
from sam2_blocks.executor.device.found import describe_devices, suggest_installation


def test_the_cpu_comes_first_with_its_threads():
    assert describe_devices()[0] == f"cpu ({torch.get_num_threads()} threads)"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without any GPU that torch can use: ``machine(NVIDIA=True, cuda="12.6")``."""

    def make(*, cuda=None, system="Linux", **drivers):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(found.platform, "system", lambda: system)
        monkeypatch.setattr(found.platform, "machine", lambda: "arm64")
        for name in ("NVIDIA", "AMD"):
            there = tmp_path if drivers.get(name) else tmp_path / "absent"
            monkeypatch.setattr(found, name, there)

    return make


def test_nothing_is_suggested_where_nothing_is_missing(machine):
    machine()
    assert suggest_installation() is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"NVIDIA": True}, "an NVIDIA driver is here, but torch .* is for CPUs: choose the line"),
        (
            {"NVIDIA": True, "cuda": "12.6"},
            r"built for CUDA 12\.6, finds no GPU\. Update the driver",
        ),
        ({"AMD": True}, "an AMD GPU is here, but torch .* is not for ROCm"),
        ({"system": "Darwin"}, "an Apple GPU is here, but torch .* does not use it"),
    ],
)
def test_a_gpu_that_torch_does_not_use_gets_a_suggestion(machine, given, words):
    machine(**given)
    assert re.search(words, suggest_installation())


def test_a_gpu_that_torch_uses_needs_none(machine, monkeypatch):
    machine(NVIDIA=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert suggest_installation() is None
