from __future__ import annotations

import pytest
import torch

from sam2_blocks.executor import load
from sam2_blocks.executor.sam2.loading import load_model
from sam2_blocks.values import PromptSet


def test_coordinates_are_encoded_in_float32():
    loaded = load_model("nano", device="cpu", seed=1, dtype="bfloat16")
    strict = load_model("nano", device="cpu", seed=1)
    points = torch.tensor([[[123.4, 56.7]]]), torch.tensor([[1]])
    with loaded.computing(reduced=False), strict.computing():
        ours, theirs = (
            m.network.sam_prompt_encoder(points=points, boxes=None, masks=None)[0]
            for m in (loaded, strict)
        )
    assert torch.equal(ours, theirs)


def test_the_network_may_see_less_or_more(pictures):
    plain = load("nano", device="cpu", seed=1)
    assert plain.spec.input_px == 0
    assert load("nano", device="cpu", seed=1, input_px=256).model.key == plain.model.key
    prompts = PromptSet.from_boxes([[100, 80, 400, 400]])
    for side in (128, 512):
        other = load("nano", device="cpu", seed=1, input_px=side)
        assert other.spec == plain.spec._replace(input_px=side)
        assert other.model.key == f"{plain.model.key}-{side}px"
        [embedding] = other.embed([pictures["photo"]])
        assert embedding.image_embed.shape[-2:] == (side // 16, side // 16)
        [found] = other.segment([(embedding, prompts)])
        assert found.low_res_logits.shape == (1, side // 4, side // 4)
        assert tuple(found.rles[0].size) == pictures["photo"].hw
        with other.track() as session:
            session.step(pictures["photo"], prompts)
            assert len(session.step(pictures["photo"]).prediction.rles) == 1
        with pytest.raises(ValueError, match=f"made by .*-{side}px' on 'cpu', but this executor"):
            plain.segment([(embedding, prompts)])
