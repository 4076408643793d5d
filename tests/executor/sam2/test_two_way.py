"""The restated transformer against the module it restates."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sam2_blocks.executor.sam2 import two_way


@pytest.fixture
def decoder(nano):
    return nano.model.network.sam_mask_decoder


@pytest.fixture
def inputs(decoder):
    """Image features (1, C, 6, 7), positions alike, and prompt tokens (3, 5, C)."""
    torch.manual_seed(0)
    width = decoder.transformer_dim
    image, pe = torch.randn(2, 1, width, 6, 7)
    return image, pe, torch.randn(3, 5, width)


def tokens_of(picture):
    return picture.flatten(2).transpose(1, 2)


def test_attention_is_that_of_the_module_with_the_image_shared(decoder, inputs):
    image, pe, prompts = inputs
    with torch.inference_mode():
        expected = decoder.transformer(
            image.expand(3, -1, -1, -1), pe.expand(3, -1, -1, -1), prompts
        )
        layer = decoder.transformer.layers[0]
        side = two_way.project_image(layer, tokens_of(image), tokens_of(pe))
        found = two_way.transform(decoder.transformer, side, prompts, tokens_of(pe))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_upscaling_is_that_of_the_modules(decoder, inputs):
    image, *_ = inputs
    width = decoder.transformer_dim
    finest, finer = torch.randn(1, width // 8, 24, 28), torch.randn(1, width // 4, 12, 14)
    deconv1, norm, activate1, deconv2, activate2 = decoder.output_upscaling
    with torch.inference_mode():
        expected = activate2(deconv2(activate1(norm(deconv1(image) + finer))) + finest)
        found = two_way.upscale(decoder, image, [finest, finer])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_image_sides_are_joined_along_the_batch(decoder, inputs):
    image, pe, _ = inputs
    layer = decoder.transformer.layers[0]
    side = two_way.project_image(layer, tokens_of(image), tokens_of(pe))
    both = two_way.ImageSide.cat([side, side])
    assert len(both.keys) == 2
    assert both.nbytes == 2 * side.nbytes


def test_only_the_decoder_restated_here_is_known(decoder):
    assert two_way.is_known(decoder)
    assert not two_way.is_known(SimpleNamespace(transformer=decoder.transformer))
