"""The restated image encoder gives the numbers of the modules it restates."""

from __future__ import annotations

import pytest
import torch

from sam2_blocks.executor import load
from sam2_blocks.executor.sam2 import trunk


@pytest.fixture(scope="module", params=["nano", "sam2.1/hiera_tiny", "sam2.1/hiera_b_plus"])
def network(request):
    return load(request.param, device="cpu", seed=7).model.network


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("side", [256, 224])
def test_every_bit_is_that_of_the_module(network, count, side):
    """224 is a side whose windows do not all fill the picture."""
    batch = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count))
    assert trunk.is_known(network.image_encoder)
    with torch.inference_mode():
        expected = network.forward_image(batch.clone())["backbone_fpn"]
        found = trunk.encode(network, batch, trunk.place_patches(network.image_encoder.trunk, side))
    assert [level.shape for level in found] == [level.shape for level in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs), (ours - theirs).abs().max()


def test_every_bit_in_half_precision(network):
    batch = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(3))
    places = trunk.place_patches(network.image_encoder.trunk, 256)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = network.forward_image(batch.clone())["backbone_fpn"]
        found = trunk.encode(network, batch, places)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_batch_is_left_as_it_is(network):
    batch = torch.randn(1, 3, 256, 256)
    before = batch.clone()
    with torch.inference_mode():
        trunk.encode(network, batch, trunk.place_patches(network.image_encoder.trunk, 256))
    assert torch.equal(batch, before)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("neck", "fuse_type", "avg"),
        ("neck", "fpn_interp_model", "bilinear"),
        ("trunk", "return_interm_layers", False),
    ],
)
def test_another_encoder_is_not_known(network, part, name, value, monkeypatch):
    monkeypatch.setattr(getattr(network.image_encoder, part), name, value)
    assert not trunk.is_known(network.image_encoder)


def test_positions_are_left_out_and_come_back():
    network = load("nano", device="cpu", backend="torch").model.network
    made, batch = network.image_encoder.neck.position_encoding, torch.zeros(1, 3, 256, 256)
    expected = network.forward_image(batch)["backbone_fpn"]
    made.cache.clear()
    with trunk.without_positions(network.image_encoder):
        found = network.forward_image(batch)
    assert made.cache == {}
    assert [level.numel() for level in found["vision_pos_enc"]] == [0] * len(expected)
    assert all(torch.equal(*pair) for pair in zip(found["backbone_fpn"], expected, strict=True))
    assert network.image_encoder.neck.position_encoding is made


def test_positions_come_back_after_an_error():
    encoder = load("nano", device="cpu", backend="torch").model.network.image_encoder
    made = encoder.neck.position_encoding
    with pytest.raises(ZeroDivisionError), trunk.without_positions(encoder):
        _ = 1 / 0
    assert encoder.neck.position_encoding is made
