"""What is not seen is hidden, and a mask that is given is taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_blocks.executor.sam2.heads import NO_OBJECT
from sam2_blocks.values import Image


@pytest.fixture
def heads(nano):
    return nano._follower._heads


@pytest.fixture
def embedding(nano):
    return nano._embed_frame(
        Image(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    )


def with_score(nano, monkeypatch, score: float) -> None:
    layer = nano.model.network.sam_mask_decoder.pred_obj_score_head.layers[-1]
    monkeypatch.setitem(layer._parameters, "weight", layer.weight * 0)
    monkeypatch.setitem(layer._parameters, "bias", layer.bias * 0 + score)


def box() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[[10.0, 10], [90, 120]]]), torch.tensor([[2, 3]], dtype=torch.int32)


def test_an_object_that_is_not_seen_has_no_mask_and_a_pointer_that_says_so(
    nano, heads, embedding, monkeypatch
):
    with_score(nano, monkeypatch, -3)
    found = heads.start(embedding, box(), None)
    assert found.object_score.tolist() == [[-3]]
    assert (found.logits == NO_OBJECT).all()
    assert torch.equal(found.pointer, nano.model.network.no_obj_ptr)


def test_an_object_that_is_seen(nano, heads, embedding, monkeypatch):
    with_score(nano, monkeypatch, 3)
    found = heads.start(embedding, box(), None)
    assert (found.logits > NO_OBJECT).all()
    assert not torch.equal(found.pointer, nano.model.network.no_obj_ptr)


def test_masks_are_taken_as_they_are(nano, heads, embedding):
    side = nano.model.image_size
    masks = torch.zeros(2, 1, side, side)
    masks[0, :, 40:120, 60:180] = 1
    found = heads.take(embedding, masks)
    assert found.object_score.tolist() == [[10], [-10]]
    assert found.iou.tolist() == [1, 1]
    assert found.logits[0, 12:28, 17:43].numpy() == pytest.approx(10, abs=1e-4)
    assert found.logits[1].numpy() == pytest.approx(-10, abs=1e-4)
    assert torch.equal(found.pointer[1:], nano.model.network.no_obj_ptr)
