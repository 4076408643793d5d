from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sam2_blocks.errors import MissingExtraError
from tests.executor.transformers.test_library import BROKEN, run

PHRASES = ["Cup", "red car", "spoon"]


def plain_nms(boxes, scores, labels, iou_threshold):
    """What ``torchvision.ops.batched_nms`` says of itself, box by box."""
    import torch

    def iou(one, other):
        sides = [min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
        shared = max(sides[0], 0) * max(sides[1], 0)
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
        return shared / (sum(areas) - shared)

    kept = []
    for row in sorted(range(len(boxes)), key=lambda row: -scores[row]):
        rivals = [other for other in kept if labels[other] == labels[row]]
        if all(iou(boxes[other], boxes[row]) <= iou_threshold for other in rivals):
            kept.append(row)
    return torch.tensor(kept, dtype=torch.int64)


@pytest.fixture
def library(torchvision_operators, monkeypatch):
    """The library's own processor, with an NMS that needs nothing compiled."""
    pytest.importorskip("transformers")
    from transformers.models.omdet_turbo import processing_omdet_turbo as module

    monkeypatch.setattr(module, "batched_nms", plain_nms)
    return module


@pytest.fixture
def processors(library, tiny_detector):
    """Ours and the library's: ``(ours, theirs)``."""
    import transformers

    from sam2_blocks.executor.transformers.omdet import OmDetProcessor

    folder = tiny_detector("omdet_turbo")
    theirs = library.OmDetTurboProcessor.from_pretrained(folder)
    return OmDetProcessor.of(transformers, folder), theirs


def test_inputs_are_those_of_the_library(processors, pictures):
    import torch

    images = [picture.pixels for picture in pictures]
    ours, theirs = (
        processor(images=images, text=[PHRASES, PHRASES[:2]], return_tensors="pt")
        for processor in processors
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 1.0])
def test_answers_are_those_of_the_library(processors, seed, threshold):
    import torch

    torch.manual_seed(seed)
    boxes = torch.rand(2, 60, 4) * 0.5 + 0.25  # many overlap, some reach out of the picture
    outputs = SimpleNamespace(
        decoder_coord_logits=boxes,
        decoder_class_logits=torch.randn(2, 60, 3),
        classes_structure=torch.tensor([3, 3]),
    )
    ours, theirs = (
        one.post_process_grounded_object_detection(
            outputs, threshold=threshold, target_sizes=[(120, 160), (90, 70)]
        )
        for one in processors
    )
    for found, expected in zip(ours, theirs, strict=True):
        assert threshold == 0.9 or (len(expected["scores"]) > 0) == (threshold < 1)
        for name in ("boxes", "scores", "labels"):
            assert torch.equal(found[name], expected[name]), name


def test_the_network_finds_what_it_finds_by_hand(load, library, tiny_detector, pictures):
    import torch
    from transformers import AutoModelForZeroShotObjectDetection

    folder = tiny_detector("omdet_turbo")
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = library.OmDetTurboProcessor.from_pretrained(folder)
    images = [picture.pixels for picture in pictures]
    inputs = processor(images=images, text=[PHRASES] * 2, return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    expected = processor.post_process_grounded_object_detection(
        outputs, threshold=0.0, target_sizes=[picture.hw for picture in pictures]
    )
    found = load("omdet_turbo").ground(pictures, PHRASES, threshold=0.0, text_threshold=0.0)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) > 1
        assert np.abs(ours.boxes_xyxy - theirs["boxes"].numpy()).max() < 1e-3
        assert np.array_equal(ours.confidence, theirs["scores"].numpy())
        assert np.array_equal(ours.class_ids, theirs["labels"].numpy())
        assert ours.class_names == tuple(PHRASES[number] for number in ours.class_ids)


def test_phrases_that_fit_no_sentence_take_several_passes(load, pictures):
    grounder = load("omdet_turbo")  # 77 tokens, a letter each
    phrases = [f"{letter * 9}" for letter in "abcdefghij"]
    groups = grounder._passes(phrases)
    assert groups == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    for group in groups:
        sentence = f"detect {', '.join(phrases[number] for number in group)}."
        assert len(grounder._tokenizer(sentence)["input_ids"]) <= 77
    [found] = grounder.ground(pictures[:1], phrases, threshold=0.0, text_threshold=0.0)
    assert found.class_names == tuple(phrases[number] for number in found.class_ids)
    assert set(found.class_ids) & set(groups[1])


def test_a_phrase_longer_than_a_sentence_is_refused(load, pictures):
    with pytest.raises(ValueError, match="has 78 tokens, and the model reads 68"):
        load("omdet_turbo").ground(pictures, ["a" * 78], threshold=0.3, text_threshold=0.3)


def test_it_runs_beside_a_torchvision_that_cannot_be_imported(tmp_path, tiny_detector):
    code = f"""
import numpy as np
from sam2_blocks.executor.transformers.loading import load
from sam2_blocks.values import Image
grounder = load({str(tiny_detector("omdet_turbo"))!r}, device="cpu")
image = Image(np.zeros((40, 50, 3), np.uint8))
[found] = grounder.ground([image], ["cup", "red car"], threshold=0.0, text_threshold=0.0)
print(len(found) > 0, sys.modules.get("torchvision"))
"""
    done = run(code, tmp_path, torchvision=BROKEN)
    assert done.stdout.split() == ["True", "None"], done.stderr


def test_a_network_that_timm_makes_says_so(tmp_path, tiny_detector, torchvision_operators):
    import json
    import shutil

    from sam2_blocks.executor.transformers.library import transformers
    from sam2_blocks.executor.transformers.loading import load

    if transformers().utils.is_timm_available():
        pytest.skip("timm is here")
    folder = shutil.copytree(tiny_detector("omdet_turbo"), tmp_path / "timm")
    config = json.loads((folder / "config.json").read_text())
    backbone = {"model_type": "timm_backbone", "backbone": "swin_tiny_patch4_window7_224"}
    config["backbone_config"] = backbone
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingExtraError, match=r"made with the package 'timm'. Run: pip install"):
        load(str(folder), device="cpu")
