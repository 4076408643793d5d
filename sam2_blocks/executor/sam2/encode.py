"""Pictures to embeddings, in batches that fit the device."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sam2_blocks.clock import stage
from sam2_blocks.executor.device.chunks import fill_bucket, map_chunks
from sam2_blocks.executor.device.graphs import TensorFunction
from sam2_blocks.executor.device.workers import MOST_CORES, Workers
from sam2_blocks.executor.sam2.model import LoadedModel
from sam2_blocks.executor.sam2.preprocess import VERSION, pictures_to_batch
from sam2_blocks.heap import tidy
from sam2_blocks.values import Embedding, Image

# Activations alive at once in the first, finest stage of the encoder, in units of its width.
LIVE_WIDTHS = 12
BATCH_BYTES = {"cpu": 2**30, "cuda": 16 * 2**30, "mps": 2 * 2**30}
MAX_BATCH = 16
SMALL_BATCH = 8
"""Where so many pictures fit into a batch, operations are so small that launching them counts."""

Encode = Callable[[Sequence[tuple[Image, str]]], list[Embedding]]
"""Makes embeddings of pictures with their keys."""

HASH_THREADS = min(8, os.cpu_count() or 1)


def embedding_key(image: Image, model: LoadedModel) -> str:
    """Name the content of an embedding, so that equal names mean equal embeddings.

    Args:
        image: uint8 RGB.
        model: names the weights, the dtype and the preprocessing.

    Returns:
        The model's key, a slash, and a digest of pixels and shape.
    """
    pixels = image.pixels
    # Processors have instructions for SHA-256: 3.2 ms for 1920x1080, where BLAKE2b takes 6.4.
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype} v{VERSION} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return f"{model.key}/{digest.hexdigest()[:32]}"


def embedding_keys(images: Sequence[Image], model: LoadedModel) -> list[str]:
    """Name the contents of several embeddings, in threads; see `embedding_key`."""
    if len(images) < 2:
        return [embedding_key(image, model) for image in images]
    with ThreadPoolExecutor(min(len(images), HASH_THREADS)) as pool:
        return list(pool.map(lambda image: embedding_key(image, model), images))


def embed_images(
    model: LoadedModel,
    images: Sequence[Image],
    keys: Sequence[str],
    workers: Workers | None = None,
    *,
    alone: bool = False,
) -> list[Embedding]:
    """Encode pictures of any sizes.

    Several are encoded side by side, one core each, where that is faster: cores that share a
    picture wait for each other after every operation, and for one that is busy with what else a
    run does. Sums are then rounded as one core rounds them, which may differ in the last bits.

    Args:
        model: the network.
        images: the pictures.
        keys: their content keys, as `embedding_key` makes them.
        workers: one core each; None computes all pictures with all cores.
        alone: whether the caller gave a single picture, which then has all cores.

    Returns:
        One embedding a picture, in order.
    """
    items = list(zip(images, keys, strict=True))
    found: list[Embedding] = []
    cores = 1 if workers is None or alone else workers.count
    apart = count_apart(model, len(items), cores)
    if workers is not None and apart:
        found = workers.map_chunks(_encode_on_one_core(model), items[:apart], [1] * apart)
    found += map_chunks(partial(_encode_chunk, model), items[apart:], batch_size(model))
    # OpenVINO keeps much from one picture to the next, and so do threads of what was large.
    if model.backend == "openvino" or (apart and not _is_small(model)):
        tidy()
    return found


def embed_ahead(model: LoadedModel, image: Image, known: Callable[[str], bool]) -> Embedding | None:
    """Encode a picture on the core of this thread as `embed_images` encodes it beside others.

    Args:
        model: a network that `encodes_ahead`.
        image: the picture.
        known: whether there is something under a content key already; then this does nothing.
    """
    with stage("embed"):
        key = embedding_key(image, model)
        return None if known(key) else _encode_on_one_core(model)([(image, key)])[0]


def encodes_ahead(model: LoadedModel, cores: int) -> bool:
    """Say whether cores are left over to encode pictures that come next.

    Args:
        model: only a small network leaves cores idle.
        cores: that compute.
    """
    return _is_small(model) and count_apart(model, cores, cores) > 0


def _encode_on_one_core(model: LoadedModel) -> Encode:
    encoder = model.recorded_encoder if _is_small(model) else None
    return partial(_encode_chunk, model, encoder=encoder)


def _encode_chunk(
    model: LoadedModel,
    chunk: Sequence[tuple[Image, str]],
    encoder: TensorFunction | None = None,
) -> list[Embedding]:
    """Encode pictures with their keys together."""
    size, device = model.image_size, model.device
    with torch.inference_mode():
        batch = pictures_to_batch([image.pixels for image, _ in chunk], size, device)
        if model.has_fixed_shapes("encoder"):
            batch = torch.stack(fill_bucket(batch.unbind(), batch_size(model)))
    levels = encode_batch(model, batch, encoder)
    return [
        own_levels(model, image, key, [level[b : b + 1] for level in levels])
        for b, (image, key) in enumerate(chunk)
    ]


def encode_batch(
    model: LoadedModel, batch: Tensor, encoder: TensorFunction | None = None
) -> list[Tensor]:
    """Run the encoder.

    Args:
        model: the network.
        batch: float32, (B, 3, S, S), as `pictures_to_batch` makes them.
        encoder: in place of the model's own; see `LoadedModel.recorded_encoder`.

    Returns:
        Feature maps, finest first: (B, C/8, h, w), (B, C/4, h/2, w/2) and (B, C, h/4, w/4); only
        the last where the model has no high-resolution features.
    """
    with model.computing():
        run = encoder or model.encoder  # which is made in this scope the first time
        return [level.to(model.dtype) for level in run(batch)]


def embedding_shapes(model: LoadedModel) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of this model's embeddings, by its name in `Embedding`."""
    channels = int(model.network.sam_prompt_encoder.embed_dim)
    height, width = model.low_res_hw
    shapes: dict[str, tuple[int, ...]] = {"image_embed": (1, channels, height // 4, width // 4)}
    if model.network.use_high_res_features_in_sam:
        shapes["high_res_feats.0"] = (1, channels // 8, height, width)
        shapes["high_res_feats.1"] = (1, channels // 4, height // 2, width // 2)
    return shapes


def batch_size(model: LoadedModel) -> int:
    """Return how many pictures to encode at once."""
    width: int = model.network.image_encoder.trunk.patch_embed.proj.out_channels
    finest_px = (model.image_size // 4) ** 2
    bytes_per_image = LIVE_WIDTHS * width * finest_px * model.dtype.itemsize
    budget = BATCH_BYTES.get(model.device.type, BATCH_BYTES["cpu"])
    return max(1, min(MAX_BATCH, budget // bytes_per_image))


def count_apart(model: LoadedModel, count: int, cores: int) -> int:
    """Return how many of the pictures that come together are encoded on one core each.

    Those that are left have all cores. Where pictures are small to the network, none is left: then
    it makes no difference to one which others come with it, how many, and which of them are known,
    as long as it does not come alone.

    Args:
        model: the network.
        count: pictures that come together.
        cores: that compute.
    """
    plain = model.backend == "torch" and model.compile == "off" and not model.packages
    fits = 1 < cores <= min(MOST_CORES, batch_size(model))
    if not (plain and fits):
        return 0
    return count if _is_small(model) else count - count % cores


def _is_small(model: LoadedModel) -> bool:
    return batch_size(model) >= SMALL_BATCH


def own_levels(model: LoadedModel, image: Image, key: str, levels: Sequence[Tensor]) -> Embedding:
    """Make an embedding with storage of its own: slices would keep their whole batch alive.

    Args:
        model: that made the levels.
        image: the picture.
        key: its content key.
        levels: (1, C', h', w') each, finest first; copied to channels last, as the decoder reads.
    """
    *high_res_feats, image_embed = (
        level.clone(memory_format=torch.channels_last) for level in levels
    )
    return Embedding(
        image_embed=image_embed,
        high_res_feats=tuple(high_res_feats),
        image_hw=image.hw,
        image_id=image.id,
        key=key,
        spec=model.spec,
    )
