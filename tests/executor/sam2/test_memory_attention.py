"""The same as upstream's module, with fewer products."""

from __future__ import annotations

import pytest
import torch

from sam2_blocks.executor import load
from sam2_blocks.executor.sam2 import memory_attention
from sam2_blocks.executor.sam2.memory_attention import _turns, attend, is_known

SIDE, OBJECTS, POINTERS = 16, 3, 8


@pytest.fixture(scope="module", params=["nano", "sam2.1/hiera_tiny"])
def attention(request):
    """Its module of a network with random weights; no backend computes it otherwise."""
    return load(request.param, device="cpu", seed=7).model.network.memory_attention


@pytest.fixture
def given(attention):
    """A frame's tokens and places, and memories of four maps and pointers."""
    generator = torch.Generator().manual_seed(0)
    width = attention.layers[0].cross_attn_image.kv_in_dim

    def random(*shape):
        return torch.randn(shape, generator=generator)

    length = 4 * SIDE * SIDE + POINTERS
    channels = attention.d_model
    return (
        random(1, SIDE * SIDE, channels),
        random(1, SIDE * SIDE, channels),
        random(OBJECTS, length, width),
        random(OBJECTS, length, width),
    )


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("band", [2**30, 2**16])
@pytest.mark.parametrize("product", [memory_attention.ONE_DNN, None], ids=["onednn", "torch"])
def test_it_equals_the_module(attention, given, shared, band, product, monkeypatch):
    monkeypatch.setattr(memory_attention, "BAND_BYTES", band)
    monkeypatch.setattr(memory_attention, "ONE_DNN", product)
    monkeypatch.setattr(memory_attention, "MUCH", 0)
    tokens, frame_places, memory, places = given
    places = places[:1] if shared else places
    assert all(is_known(layer) for layer in attention.layers)
    with torch.inference_mode():
        found = attend(
            attention, tokens, memory, places, frame_places=frame_places, pointers=POINTERS
        )
        expected = attention(
            curr=tokens.expand(OBJECTS, -1, -1).transpose(0, 1),
            curr_pos=frame_places.expand(OBJECTS, -1, -1).transpose(0, 1),
            memory=memory.transpose(0, 1),
            memory_pos=places.expand(OBJECTS, -1, -1).transpose(0, 1),
            num_obj_ptr_tokens=POINTERS,
        ).transpose(0, 1)
    assert torch.allclose(found, expected, atol=2e-5), (found - expected).abs().max()


def test_half_precision_takes_the_module_itself(attention, given):
    tokens, frame_places, memory, places = given
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = attend(
            attention, tokens, memory, places, frame_places=frame_places, pointers=POINTERS
        )
    assert torch.isfinite(found).all()


def test_the_turns_go_where_the_tokens_are(attention):
    """Upstream puts them on the first GPU of a machine that has one, whatever device is asked."""
    cross = attention.layers[0].cross_attn_image
    kept = cross.freqs_cis
    for count in (SIDE * SIDE, 4 * SIDE * SIDE):
        assert _turns(cross, count, torch.device("meta")).device.type == "meta"
        cross.freqs_cis = kept
