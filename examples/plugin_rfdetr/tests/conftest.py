from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2_blocks import Image, load_plugins

NAMES = ["person", "dog", "cup"]


def define_torchvision_operators():
    """Let ``import torchvision`` succeed beside a torch that its build is not for.

    The names of its operators are enough; rfdetr calls none of them to look at pictures. Returns
    what keeps them defined.
    """
    try:
        import torchvision  # noqa: F401

        return None
    except RuntimeError:
        folder = importlib.util.find_spec("torchvision").submodule_search_locations[0]
    source = Path(folder, "_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "DEF")
    for name in set(re.findall(r'register_(?:fake|meta)\("(?:torchvision::)?(\w+)"', source)):
        try:
            library.define(f"{name}(Tensor x) -> Tensor")
        except RuntimeError:
            continue  # there already
    return library


KEPT = define_torchvision_operators()


@pytest.fixture(scope="session")
def plugins():
    """Every installed plugin, this one among them; a broken one fails the tests."""
    return load_plugins(strict=True)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A seeded model as rfdetr saves a training: ``checkpoint("RFDETRNano")``."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = save_seeded(name, tmp_path_factory.mktemp("models") / "best.pth")
        return made[name]

    return make


def save_seeded(name, file):
    import rfdetr

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(rfdetr, name)(pretrain_weights=None, num_classes=len(NAMES), device="cpu")
    args = {"num_classes": len(NAMES), "class_names": NAMES, "pretrain_weights": f"{name}.pth"}
    weights = model.model.model.state_dict()
    config = model.model_config.model_dump()
    torch.save({"model": weights, "args": args, "model_name": name, "model_config": config}, file)
    return str(file)


@pytest.fixture(scope="session")
def pictures():
    rng = np.random.default_rng(0)
    sizes = {"wide": (90, 120), "high": (150, 70)}
    return [
        Image(rng.integers(0, 256, (*hw, 3), dtype=np.uint8), name) for name, hw in sizes.items()
    ]
