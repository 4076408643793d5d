from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.errors import ImageError, ModelError
from sam2_blocks.values import Image


def test_what_is_no_picture_is_refused(load):
    with pytest.raises(ImageError, match="wants shape"):
        load("rt_detr_v2").detect([Image(np.zeros((4, 4), np.uint8))], threshold=0.5)


def test_memory_that_runs_out_halves_the_batch(load, monkeypatch):
    import torch

    detector = load("rt_detr_v2")
    forward = detector._network.network.forward
    seen = []

    def with_room_for_two(*args, **named):
        seen.append(len(named["pixel_values"]))
        if seen[-1] > 2:
            raise torch.OutOfMemoryError
        return forward(*args, **named)

    monkeypatch.setattr(detector._network.network, "forward", with_room_for_two)
    picture = Image(np.zeros((40, 50, 3), np.uint8))
    assert len(detector.detect([picture] * 4, threshold=0.2)) == 4
    assert seen == [4, 2, 2]


def test_no_room_for_one_is_an_error(load, monkeypatch):
    import torch

    detector = load("rt_detr_v2")

    def full(*args, **named):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(detector._network.network, "forward", full)
    with pytest.raises(ModelError, match="not enough memory"):
        detector.detect([Image(np.zeros((40, 50, 3), np.uint8))], threshold=0.2)


def test_half_precision_computes_in_it(load, pictures):
    detector = load("yolos", dtype="bfloat16")
    assert detector.spec.dtype == "bfloat16"
    assert len(detector.detect(pictures, threshold=0.0)) == 2
