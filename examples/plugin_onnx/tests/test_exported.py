"""Models that Ultralytics exported, where it is installed: boxes are those of its own ``predict``.

Their weights are seeded, made from its own configurations; nothing is downloaded.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
import types

import numpy as np
import pytest

from sam2_blocks import Image

NAMES = dict(enumerate(["person", "dog", "cup"]))


@pytest.fixture(scope="module")
def yolo(tmp_path_factory):
    """The class of Ultralytics, without its settings, its updates and the network."""
    folder = tmp_path_factory.mktemp("ultralytics")
    os.environ |= {
        "YOLO_CONFIG_DIR": str(folder),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
    }
    ultralytics = pytest.importorskip("ultralytics", exc_type=ImportError)
    try:
        importlib.import_module("torchvision")
    except Exception:  # a build for CUDA beside a torch for CPUs: its own NMS stands in
        made = types.ModuleType("torchvision")
        made.__spec__ = importlib.machinery.ModuleSpec("torchvision", None)
        nms = importlib.import_module("ultralytics.utils.nms").TorchNMS.nms
        made.ops = types.SimpleNamespace(nms=nms)
        sys.modules["torchvision"] = made
    return ultralytics.YOLO


@pytest.fixture
def export(yolo, tmp_path):
    """Export a seeded model of three classes that finds much."""

    def make(configuration):
        import torch
        from ultralytics.nn.tasks import yaml_model_load
        from ultralytics.utils import YAML

        YAML.save(tmp_path / configuration, {**yaml_model_load(configuration), "nc": len(NAMES)})
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            model = yolo(tmp_path / configuration)
            _settle(model.model)
        model.model.names = NAMES
        model.save(tmp_path / "model.pt")
        saved = yolo(tmp_path / "model.pt")
        return saved.export(format="onnx", imgsz=64, simplify=False)

    return make


def _settle(network):
    """Give new weights what training would: features that differ, scores around a third."""
    import torch

    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.5
    network.train()
    for _ in range(8):
        network(torch.rand(2, 3, 128, 128))
    network.eval()
    for branch in ("cv3", "one2one_cv3"):
        for scores in getattr(network.model[-1], branch, None) or ():
            scores[-1].weight *= 0.2
            scores[-1].bias.fill_(-1)


@pytest.mark.filterwarnings("ignore")  # of exporting; they are not ours
@pytest.mark.parametrize(
    "configuration", ["yolov8n.yaml", "yolo11n.yaml", "yolo11n-seg.yaml", "yolo26n.yaml"]
)
@pytest.mark.parametrize("hw", [(90, 120), (150, 70)])
def test_the_boxes_are_those_of_ultralytics(detect, yolo, export, configuration, hw):
    file = export(configuration)
    pixels = np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
    asked = {"conf": 0.1, "iou": 0.7, "verbose": False, "device": "cpu", "imgsz": 64}
    [theirs] = yolo(file).predict(np.ascontiguousarray(pixels[..., ::-1]), **asked)
    found = detect(Image(pixels, "noise"), model=str(file), threshold=0.1, nms_iou=0.7)
    inside = (theirs.boxes.xyxy[:, 2:] > theirs.boxes.xyxy[:, :2]).all(dim=1).numpy()
    assert inside.sum() > 1
    np.testing.assert_allclose(found.xyxy, theirs.boxes.xyxy.numpy()[inside], atol=1e-3)
    np.testing.assert_allclose(found.confidence, theirs.boxes.conf.numpy()[inside], atol=1e-6)
    assert list(found.data["class_name"]) == [
        NAMES[int(number)] for number in theirs.boxes.cls.numpy()[inside]
    ]
