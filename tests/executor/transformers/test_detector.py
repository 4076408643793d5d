from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.executors import ObjectDetector, TextPrompted
from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.values import Image

DETECTORS = ("rt_detr_v2", "rt_detr", "d_fine", "yolos")


def by_hand(folder, pictures, threshold, device="cpu"):
    """What the library's own documentation says to do."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    model = AutoModelForObjectDetection.from_pretrained(folder).to(device)
    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=[picture.pixels for picture in pictures], return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs.to(device))
    sizes = [picture.hw for picture in pictures]
    return processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=sizes)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("count", [1, 2])
def test_finds_what_the_library_finds_in_its_order(load, tiny_detector, pictures, name, count):
    detector = load(name)
    assert isinstance(detector, ObjectDetector)
    assert not isinstance(detector, TextPrompted)
    threshold = 0.2
    found = detector.detect(pictures[:count], threshold=threshold)
    expected = by_hand(tiny_detector(name), pictures[:count], threshold)
    assert len(found) == count
    assert sum(len(of) for of in found) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours.boxes_xyxy - theirs["boxes"].numpy()).max(initial=0) < 1e-3
        assert np.array_equal(ours.confidence, theirs["scores"].numpy())
        assert np.array_equal(ours.class_ids, theirs["labels"].numpy())


def test_names_come_from_the_model(load, pictures):
    detector = load("rt_detr_v2")
    assert detector.class_names == ("cat", "dog", "person")
    [found] = detector.detect(pictures[:1], threshold=0.2)
    names = np.array(detector.class_names)
    assert found.class_names == tuple(names[found.class_ids])


def test_nothing_is_found_in_no_pictures_or_above_all_scores(load, pictures):
    detector = load("rt_detr_v2")
    assert detector.detect([], threshold=0.2) == []
    assert [len(found) for found in detector.detect(pictures, threshold=1.0)] == [0, 0]


def test_a_segmenter_gives_the_librarys_masks_and_their_boxes(load, tiny_detector, pictures):
    import torch
    from transformers import AutoImageProcessor, RfDetrForInstanceSegmentation

    folder = tiny_detector("rf_detr_seg")
    model = RfDetrForInstanceSegmentation.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=[picture.pixels for picture in pictures], return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    expected = processor.post_process_instance_segmentation(
        outputs,
        threshold=0.012,
        target_sizes=[picture.hw for picture in pictures],
        return_binary_maps=True,
    )
    found = load("rf_detr_seg").detect(pictures, threshold=0.012)
    assert sum(len(of) for of in found) > 0
    for ours, theirs in zip(found, expected, strict=True):
        masks = [rle_to_mask(rle) for rle in ours.rles]
        assert np.array_equal(np.array(masks), theirs["segmentation"].numpy())
        for box, mask in zip(ours.boxes_xyxy, masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]


def test_masks_of_one_map_are_taken_apart():
    from sam2_blocks.executor.transformers.detector import _masks

    ids = np.array([[-1, 1], [2, 2]], np.int32)
    first, second = _masks(ids, [{"id": 1}, {"id": 2}])
    assert first.tolist() == [[False, True], [False, False]]
    assert second.tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize(
    ("own", "size"),
    [
        ({"height": 640, "width": 640}, {"height": 320, "width": 320}),
        ({"shortest_edge": 800, "longest_edge": 1333}, {"shortest_edge": 320, "longest_edge": 533}),
        ({"shortest_edge": 800}, {"shortest_edge": 320}),
    ],
)
def test_another_size_is_said_in_the_processors_own_terms(own, size):
    from sam2_blocks.executor.transformers.detector import _resized

    assert _resized(own, 320) == size


def test_another_size_changes_what_the_model_sees(load, pictures):
    detector = load("rt_detr_v2")
    [usual] = detector.detect(pictures[:1], threshold=0.2)
    [larger] = detector.detect(pictures[:1], threshold=0.2, size_px=96)
    assert not np.array_equal(usual.boxes_xyxy, larger.boxes_xyxy)


def test_pictures_come_in_batches(load, monkeypatch):
    from sam2_blocks.executor.transformers import network

    monkeypatch.setattr(network, "PICTURES_PER_BATCH", 2)
    detector = load("rt_detr_v2")
    seen = []
    forward = detector._network.network.forward
    monkeypatch.setattr(
        detector._network.network,
        "forward",
        lambda *args, **named: (seen.append(len(named["pixel_values"])), forward(*args, **named))[
            1
        ],
    )
    picture = Image(np.zeros((40, 50, 3), np.uint8))
    assert len(detector.detect([picture] * 5, threshold=0.2)) == 5
    assert seen == [2, 2, 1]


def test_warms_up(load):
    from sam2_blocks.executors import WarmsUp

    detector = load("rt_detr_v2")
    assert isinstance(detector, WarmsUp)
    detector.warm_up()
