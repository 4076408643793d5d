"""Fewer products, the same results."""

from __future__ import annotations

import pytest
import torch

from sam2_blocks.executor.sam2 import folded, two_way
from sam2_blocks.executor.sam2.decode import Decoder
from sam2_blocks.executor.sam2.rows import prompts_to_rows
from sam2_blocks.values import PromptSet


def tokens_of(picture):
    return picture.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("pictures", [1, 3])
def test_it_is_the_transformer_of_upstream(nano, pictures):
    decoder = nano.model.network.sam_mask_decoder
    torch.manual_seed(0)
    width = decoder.transformer_dim
    images, pe = torch.randn(pictures, width, 6, 7), torch.randn(1, width, 6, 7)
    prompts = torch.randn(3, 5, width)
    with torch.inference_mode():
        expected = decoder.transformer(
            images.expand(3, -1, -1, -1), pe.expand(3, -1, -1, -1), prompts
        )
        side = two_way.project_image(
            decoder.transformer.layers[0], tokens_of(images), tokens_of(pe)
        )
        found = folded.transform(decoder.transformer, side, prompts, tokens_of(pe))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_tracking_and_half_precision_go_the_other_way(load_nano):
    assert Decoder(load_nano(seed=7).model)._may_fold
    half = Decoder(load_nano(seed=7, dtype="bfloat16").model)
    assert not half._may_fold


def test_it_is_taken_for_few_tokens_in_float32(tiny):
    transformer = tiny.model.network.sam_mask_decoder.transformer
    assert folded.is_worth_it(transformer, 9)  # of a box
    assert not folded.is_worth_it(transformer, 16)


def test_many_clicks_are_decoded_as_few_are(tiny, tiny_embedding, monkeypatch):
    """Either way of the decoder has the logits of the other."""
    found, ways = [], []
    fold = folded.transform
    monkeypatch.setattr(folded, "transform", lambda *args: ways.append(may_fold) or fold(*args))
    for may_fold in (True, False):
        decoder = Decoder(tiny.model)
        assert decoder._may_fold
        decoder._may_fold = may_fold
        rows = prompts_to_rows(
            [(tiny_embedding, PromptSet.from_boxes([[9, 9, 200, 150], [50, 60, 400, 300]]))],
            image_size=tiny.model.image_size,
            low_res_hw=tiny.model.low_res_hw,
        )
        found.append(decoder.decode(rows, multimask_output=True))
    assert ways == [True]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
