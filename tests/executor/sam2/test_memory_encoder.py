"""The same as upstream's module, with fewer steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sam2_blocks.executor import load
from sam2_blocks.executor.sam2 import memory_encoder

SIDE = 256


@pytest.fixture(scope="module", params=["nano", "sam2.1/hiera_tiny"])
def encoder(request):
    encoder = load(request.param, device="cpu", seed=7).model.network.memory_encoder
    with torch.no_grad():  # else the blocks hardly matter
        for block in encoder.fuser.layers:
            block.gamma.fill_(0.7)
    return encoder


@pytest.fixture
def given(encoder):
    generator = torch.Generator().manual_seed(0)
    channels = encoder.pix_feat_proj.in_channels
    picture = torch.randn(1, channels, SIDE // 16, SIDE // 16, generator=generator)
    return picture, 10 * torch.randn(3, 1, SIDE, SIDE, generator=generator)


def expected_of(encoder, picture, masks):
    return encoder(picture, masks, skip_mask_sigmoid=True)["vision_features"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_bit_is_that_of_the_module(encoder, given, layout):
    picture, masks = given
    picture = picture.contiguous(memory_format=layout)
    with torch.inference_mode():
        found = memory_encoder.encode(encoder, picture, masks)
        expected = expected_of(encoder, picture, masks)
    assert torch.equal(found, expected), (found - expected).abs().max()


def test_blocks_of_another_kind_are_run_as_they_are(encoder, given, monkeypatch):
    class Other(nn.Module):
        def forward(self, maps):
            return maps * 2

    monkeypatch.setattr(encoder.fuser, "layers", nn.ModuleList([Other()]))
    monkeypatch.setattr(encoder.fuser, "proj", Other())
    with torch.inference_mode():
        found = memory_encoder.encode(encoder, *given)
        expected = expected_of(encoder, *given)
    assert torch.allclose(found, expected, atol=2e-5)
