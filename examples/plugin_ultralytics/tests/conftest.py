from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
import tempfile
import types

import numpy as np
import pytest

os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp()  # its settings, read when it is imported
os.environ["YOLO_OFFLINE"] = "true"
os.environ["YOLO_AUTOINSTALL"] = "false"

from sam2_blocks import Image, load_plugins

NAMES = dict(enumerate(["person", "dog", "cup"]))


@pytest.fixture(scope="session", autouse=True)
def torchvision():
    """Where torchvision cannot be imported, such as a build for CUDA beside a torch for CPUs,
    Ultralytics' own NMS stands in for the one function that is called."""
    try:
        importlib.import_module("torchvision")
    except Exception:
        from ultralytics.utils.nms import TorchNMS

        made = types.ModuleType("torchvision")
        made.__spec__ = importlib.machinery.ModuleSpec("torchvision", None)
        made.ops = types.SimpleNamespace(nms=TorchNMS.nms)
        sys.modules["torchvision"] = made


@pytest.fixture(scope="session")
def plugins():
    """Every installed plugin, this one among them; a broken one fails the tests."""
    return load_plugins(strict=True)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A seeded model of three classes that finds much: ``model_file("yolo11n.yaml")``."""
    made = {}

    def make(configuration):
        if configuration not in made:
            folder = tmp_path_factory.mktemp("models")
            made[configuration] = save_seeded(configuration, folder)
        return made[configuration]

    return make


def save_seeded(configuration, folder):
    import torch
    import ultralytics
    from ultralytics.nn.tasks import yaml_model_load
    from ultralytics.utils import YAML

    YAML.save(folder / configuration, {**yaml_model_load(configuration), "nc": len(NAMES)})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ultralytics.YOLO(folder / configuration)
        model.model.names = NAMES
        if model.task != "classify":
            _make_certain(model.model.model[-1])
        model.save(folder / "model.pt")
    return str(folder / "model.pt")


def _make_certain(head):
    """New weights are certain of nothing; scatter what they say around a third."""
    import torch

    with torch.no_grad():
        for branch in ("cv3", "one2one_cv3"):
            for scores in getattr(head, branch, None) or ():
                scores[-1].weight *= 40
                scores[-1].bias.copy_(torch.randn_like(scores[-1].bias) * 0.5 - 2)


@pytest.fixture(scope="session")
def pictures():
    rng = np.random.default_rng(0)
    sizes = {"wide": (90, 120), "high": (150, 70), "small": (40, 40)}
    return [
        Image(rng.integers(0, 256, (*hw, 3), dtype=np.uint8), name) for name, hw in sizes.items()
    ]
