"""The trainable forward of nano: embed images, decode prompts. Not needed at inference."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

CONFIG = Path(str(files("sam2_blocks.executor.weights") / "nano.yaml"))
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
UNTRAINED = ("memory_", "mask_downsample", "maskmem_tpos", "obj_ptr", "no_obj_", "no_mem_pos")


def build(image_size: int | None = None) -> SAM2Base:
    """Build nano with fresh weights; ``image_size`` in pixels overrides the config's."""
    config = OmegaConf.load(CONFIG)
    if image_size is not None:
        config.model.image_size = image_size
    model: SAM2Base = instantiate(config.model, _recursive_=True)
    return model


def set_image_size(model: SAM2Base, image_size: int) -> None:
    """Let the same weights work at another square input size in pixels."""
    model.image_size = image_size
    grid = image_size // model.backbone_stride
    model.sam_image_embedding_size = grid
    encoder = model.sam_prompt_encoder
    encoder.image_embedding_size = (grid, grid)
    encoder.input_image_size = (image_size, image_size)
    encoder.mask_input_size = (4 * grid, 4 * grid)


def trained_parameters(model: SAM2Base) -> dict[str, torch.nn.Parameter]:
    """Name the parameters that image segmentation uses; the video memory is never trained."""
    return {n: p for n, p in model.named_parameters() if not n.startswith(UNTRAINED)}


def embed(model: SAM2Base, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Encode images (B, 3, S, S) in 0..1 to features (B, 128, S/16, S/16) and two finer maps."""
    images = (images - MEAN.to(images)) / STD.to(images)
    features = model.forward_image(images)["backbone_fpn"]
    no_memory = model.no_mem_embed[0, 0, :, None, None].to(features[-1].dtype)
    return features[-1] + no_memory, features[:-1]


def decode(
    model: SAM2Base,
    embedding: tuple[Tensor, list[Tensor]],
    coords: Tensor,
    labels: Tensor,
    masks: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode K prompts per image to all four candidates; candidate 0 is the single-mask token.

    Args:
        model: nano.
        embedding: what :func:`embed` returned for B images.
        coords: float, (B, K, P, 2), xy in input pixels; a box is two points labelled 2 and 3.
        labels: int, (B, K, P), -1 pads.
        masks: logits of an earlier decode, (B, K, S/4, S/4), or None.

    Returns:
        Logits (B, K, 4, S/4, S/4), predicted IoU (B, K, 4) in 0..1, object score (B, K).
    """
    batch, prompts = coords.shape[:2]
    image_embed, high_res = embedding
    with torch.autocast(coords.device.type, enabled=False):  # bfloat16 would move boxes by a pixel
        sparse, dense = model.sam_prompt_encoder(
            points=(coords.flatten(0, 1), labels.flatten(0, 1)),
            boxes=None,
            masks=None if masks is None else masks.flatten(0, 1)[:, None],
        )
        position = model.sam_prompt_encoder.get_dense_pe()
    sparse, dense, position = (t.to(image_embed.dtype) for t in (sparse, dense, position))
    logits, iou, _, score = model.sam_mask_decoder.predict_masks(
        image_embeddings=image_embed.repeat_interleave(prompts, 0),
        image_pe=position,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[f.repeat_interleave(prompts, 0) for f in high_res],
    )
    shape = (batch, prompts)
    return logits.unflatten(0, shape), iou.unflatten(0, shape), score.unflatten(0, shape)[..., 0]
