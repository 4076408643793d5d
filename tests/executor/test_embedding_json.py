import json

import pytest

from sam2_blocks.executor.embedding_json import embedding_to_json, json_to_embedding
from sam2_blocks.values import Embedding, ExecutorSpec

SPEC = ExecutorSpec("nano", "cpu", "float32")


def test_an_embedding_travels_exactly():
    torch = pytest.importorskip("torch")
    made = Embedding(
        torch.randn(1, 4, 2, 2, dtype=torch.bfloat16),
        (torch.randn(1, 1, 8, 8), torch.randn(1, 2, 4, 4)),
        (24, 32),
        "cat.png",
        "nano/1234",
        ExecutorSpec("nano", "cpu", "bfloat16"),
    )
    back = json_to_embedding(json.loads(json.dumps(embedding_to_json(made))))
    assert torch.equal(back.image_embed, made.image_embed)
    assert all(map(torch.equal, back.high_res_feats, made.high_res_feats))
    assert (back.image_hw, back.image_id, back.spec) == (made.image_hw, made.image_id, made.spec)


def test_an_embedding_that_came_by_wire_has_the_key_of_its_content():
    torch = pytest.importorskip("torch")
    honest, forged = (
        Embedding(torch.full((1, 4, 2, 2), value), (), (24, 32), "cat.png", "nano@1/abc", SPEC)
        for value in (0.0, 1.0)
    )
    keys = [json_to_embedding(embedding_to_json(made)).key for made in (honest, honest, forged)]
    assert keys[0] == keys[1] != keys[2]
    assert all(key.startswith("nano@1/") and key != "nano@1/abc" for key in keys)


@pytest.mark.parametrize("value", ["text", {}, {"spec": {}, "safetensors": "%"}])
def test_a_wrong_embedding_is_refused(value):
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="serialised embedding"):
        json_to_embedding(value)
