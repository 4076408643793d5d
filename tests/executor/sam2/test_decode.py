"""What fills a batch up to its size changes nothing for the prompts in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2_blocks.executor.sam2 import decode
from sam2_blocks.executor.sam2.backend import OpenVinoDecoder
from sam2_blocks.executor.sam2.decode import Decoder
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.rows import PromptRow, prompts_to_rows
from sam2_blocks.values import Embedding, Image, Prompt, PromptSet


@pytest.fixture(scope="module")
def embeddings(nano: Sam2Executor) -> list[Embedding]:
    rng = np.random.default_rng(0)
    return nano.embed([Image(rng.integers(0, 256, (90, 120, 3), np.uint8)) for _ in range(2)])


def rows_of(nano: Sam2Executor, items, *, with_masks: bool = False) -> list[PromptRow]:
    if with_masks:
        mask = np.random.default_rng(1).normal(size=(1, *nano.model.low_res_hw)).astype(np.float32)
        items = [
            (embedding, PromptSet(tuple(replace(p, mask_input=mask) for p in prompts.prompts)))
            for embedding, prompts in items
        ]
    size = nano.model.image_size
    return prompts_to_rows(items, image_size=size, low_res_hw=nano.model.low_res_hw)


def boxes(count: int, seed: int) -> PromptSet:
    corners = np.random.default_rng(seed).uniform(0, 90, (count, 2, 2))
    return PromptSet.from_boxes(np.concatenate([corners.min(1), corners.max(1)], 1))


@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("images", [1, 2])
def test_what_fills_a_batch_is_inert(monkeypatch, nano, embeddings, images, with_masks):
    """Not one bit of the others depends on it."""
    items = [(embedding, boxes(3, seed=1)) for embedding in embeddings[:images]]
    rows = rows_of(nano, items, with_masks=with_masks)[:3]
    others = rows_of(nano, [(embeddings[0], boxes(5, seed=2))], with_masks=with_masks)
    monkeypatch.setattr(type(nano.model), "has_fixed_shapes", lambda self, part: True)
    decoder = Decoder(nano.model)
    answers = []
    for filling in (rows[-1], others[0], others[1]):
        monkeypatch.setattr(decode, "fill_bucket", lambda rows, most, f=filling: [*rows, f])
        answers.append(decoder.decode(rows, multimask_output=True))
    for logits, iou in answers:
        assert logits.shape[:2] == (3, 3)
        assert torch.equal(logits, answers[0][0])
        assert torch.equal(iou, answers[0][1])


@pytest.mark.parametrize("multimask_output", [True, False])
def test_filled_batches_answer_like_batches_as_they_are(
    monkeypatch, nano, embeddings, multimask_output
):
    rows = rows_of(nano, [(embedding, boxes(3, seed=3)) for embedding in embeddings])[:5]
    plain = Decoder(nano.model)
    expected = plain.decode(rows, multimask_output=multimask_output)
    monkeypatch.setattr(type(nano.model), "has_fixed_shapes", lambda self, part: True)
    filled = Decoder(nano.model)
    sizes: list[int] = []
    forward = filled._forward
    monkeypatch.setattr(filled, "_forward", lambda *t: sizes.append(len(t[0])) or forward(*t))
    answer = filled.decode(rows, multimask_output=multimask_output)
    assert sizes == [8]
    for ours, theirs in zip(answer, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_prompts_of_masks_alone_can_be_filled_up_too(monkeypatch, nano, embeddings):
    mask = np.zeros((1, *nano.model.low_res_hw), np.float32)
    prompts = PromptSet((Prompt(mask_input=mask),) * 3)
    rows = rows_of(nano, [(embeddings[0], prompts)])
    expected, _ = Decoder(nano.model).decode(rows, multimask_output=True)
    monkeypatch.setattr(type(nano.model), "has_fixed_shapes", lambda self, part: True)
    answer, _ = Decoder(nano.model).decode(rows, multimask_output=True)
    torch.testing.assert_close(answer, expected, atol=1e-4, rtol=0)


def test_all_cores_take_full_chunks_as_often_as_they_can(monkeypatch, nano):
    decoder = Decoder(nano.model)
    monkeypatch.setattr(Decoder, "chunk_size", 1)
    assert decoder.chunk_sizes(3, cores=2) == [1, 1, 1]
    if nano.spec.backend == "torch":
        assert decoder.chunk_sizes(40, cores=2) == [1] * 40
        return
    decoder._forward = OpenVinoDecoder(nano.model, decoder._decode_tokens)
    assert decoder.chunk_sizes(100, cores=2) == [8] * 12 + [1] * 4
    assert decoder.chunk_sizes(42, cores=2) == [8] * 4 + [5, 5]
    assert decoder.chunk_sizes(15, cores=2) == [8, 7]
    assert decoder.chunk_sizes(8, cores=2) == [1] * 8
