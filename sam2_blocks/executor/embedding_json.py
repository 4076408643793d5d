"""Embeddings as JSON, for hosts that send values between processes."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from sam2_blocks.values import Embedding, ExecutorSpec


def embedding_to_json(embedding: Embedding) -> dict[str, Any]:
    """Write an embedding as JSON; its tensors exactly, as safetensors in base64."""
    from safetensors.torch import save

    saved = save({name: tensor.contiguous() for name, tensor in embedding.tensors.items()})
    return {
        "image_hw": list(embedding.image_hw),
        "image_id": embedding.image_id,
        "key": embedding.key,
        "spec": embedding.spec._asdict(),
        "safetensors": base64.b64encode(saved).decode("ascii"),
    }


def json_to_embedding(value: object) -> Embedding:
    """Read an embedding; its tensors go to the device they were made on.

    Its key comes from what arrived, not from what the sender says it is: the executor keeps what it
    computes from an embedding by that key, for everybody.

    Raises:
        ValueError: if it is not what `embedding_to_json` writes, or the device is not here.
    """
    from safetensors.torch import load

    if not isinstance(value, dict):
        raise ValueError(f"wants the mapping of a serialised embedding, got {value!r:.80}")
    try:
        spec = ExecutorSpec(**value["spec"])
        content = base64.b64decode(value["safetensors"], validate=True)
        tensors = load(content)
        feats = sorted(name for name in tensors if name.startswith("high_res_feats."))
        height, width = value["image_hw"]
        return Embedding(
            image_embed=tensors["image_embed"].to(spec.device),
            high_res_feats=tuple(tensors[name].to(spec.device) for name in feats),
            image_hw=(int(height), int(width)),
            image_id=str(value["image_id"]),
            key=f"{str(value['key']).rpartition('/')[0]}/{hashlib.sha256(content).hexdigest()[:32]}",
            spec=spec,
        )
    except Exception as error:  # the parsers and the device raise errors of many types
        raise ValueError(f"not a serialised embedding, or not for this machine: {error}") from error
