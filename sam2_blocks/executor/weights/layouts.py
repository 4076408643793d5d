"""The names that tensors of SAM 2 have in other people's files, and ours: exact renames, both ways.

Ours are those of the public checkpoints. The ``transformers`` library calls the same tensors by
other names, keeps four embeddings of points in one tensor, and stores the position encoding twice.
Training adds prefixes: ``module.`` where several processes trained, ``_orig_mod.`` where
`torch.compile` did. Nothing is computed here.

Source: the classes ``Sam2VideoModel`` and ``Sam2Model`` of transformers 5.24.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from sam2_blocks.errors import ModelError

Rename = tuple[str, str]
"""Name in transformers, name of ours; each ``*`` is the same text on both sides, without dots."""

_TRAINING_PREFIXES = ("module.", "_orig_mod.")
_POINTS = "prompt_encoder.point_embed.weight"
_OUR_POINTS = "sam_prompt_encoder.point_embeddings."
_POSITIONS = "prompt_encoder.shared_embedding.positional_embedding"
_POSITIONS_AGAIN = "shared_image_embedding.positional_embedding"
_POINT_KINDS = 4
_SHOWN = 3

MEMORY_PREFIXES = (
    "maskmem_tpos_enc",
    "mask_downsample.",
    "memory_attention.",
    "memory_encoder.",
    "no_mem_pos_enc",
    "no_obj_embed_spatial",
    "no_obj_ptr",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
)
"""How the names of tensors begin that only videos need; a ``Sam2Model`` has none of them."""


def strip_training_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what wrappers of training put before every name."""
    stripped = dict(state)
    found = True
    while found:
        found = False
        for prefix in _TRAINING_PREFIXES:
            if stripped and all(name.startswith(prefix) for name in stripped):
                stripped = {name.removeprefix(prefix): t for name, t in stripped.items()}
                found = True
    return stripped


def is_of_transformers(state: Mapping[str, Tensor]) -> bool:
    """Whether names are those of the transformers library."""
    return any(name.startswith("vision_encoder.backbone.") for name in state)


def lacks_memory(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict in our names has nothing of what only videos need."""
    return not any(name.startswith(MEMORY_PREFIXES) for name in state)


def from_transformers(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Give the tensors of a ``Sam2VideoModel`` or ``Sam2Model`` our names.

    Args:
        state: tensors by their name in transformers.
        source: what to call the file in the message.

    Raises:
        ModelError: if there are names that such models do not have, with a few of them.
    """
    rest = dict(state)
    again = rest.pop(_POSITIONS_AGAIN, None)
    if again is not None and not torch.equal(rest.setdefault(_POSITIONS, again), again):
        raise ModelError(f"{source}: {_POSITIONS_AGAIN} and {_POSITIONS} differ; they must not.")
    points = rest.pop(_POINTS, None)
    renamed = _rename(rest, _TO_OURS, source)
    if points is not None:
        rows = points[:, None]  # (1, C) each
        renamed |= {f"{_OUR_POINTS}{kind}.weight": row.clone() for kind, row in enumerate(rows)}
    return renamed


def to_transformers(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Give tensors in our names those of a ``Sam2VideoModel``; the reverse of `from_transformers`.

    Args:
        state: tensors by our names.
        source: what to call the file in the message.

    Raises:
        ModelError: if there are names that SAM 2 does not have, with a few of them.
    """
    rest = dict(state)
    names = [f"{_OUR_POINTS}{kind}.weight" for kind in range(_POINT_KINDS)]
    rows = [rest.pop(name) for name in names if name in rest]
    renamed = _rename(rest, _TO_THEIRS, source)
    if rows:
        renamed[_POINTS] = torch.cat(rows)
    if _POSITIONS in renamed:
        renamed[_POSITIONS_AGAIN] = renamed[_POSITIONS].clone()
    return renamed


def _rename(
    state: Mapping[str, Tensor], rename: Callable[[str], str | None], source: str
) -> dict[str, Tensor]:
    names = {name: rename(name) for name in state}
    unknown = sorted(name for name, other in names.items() if other is None)
    if unknown:
        more = ", …" if len(unknown) > _SHOWN else ""
        raise ModelError(
            f"{source} has {len(unknown)} tensors that SAM 2 of the transformers library does not "
            f"have ({', '.join(unknown[:_SHOWN])}{more}). Is it another model?"
        )
    return {names[name] or name: tensor for name, tensor in state.items()}


def _two_layers(theirs: str, ours: str) -> Iterator[Rename]:
    yield f"{theirs}.proj_in.*", f"{ours}.layers.0.*"
    yield f"{theirs}.proj_out.*", f"{ours}.layers.1.*"


def _three_layers(theirs: str, ours: str) -> Iterator[Rename]:
    yield f"{theirs}.proj_in.*", f"{ours}.layers.0.*"
    yield f"{theirs}.layers.0.*", f"{ours}.layers.1.*"
    yield f"{theirs}.proj_out.*", f"{ours}.layers.2.*"


def _attention(theirs: str, ours: str) -> Iterator[Rename]:
    for part in ("q_proj", "k_proj", "v_proj"):
        yield f"{theirs}.{part}.*", f"{ours}.{part}.*"
    yield f"{theirs}.o_proj.*", f"{ours}.out_proj.*"


def _encoder() -> Iterator[Rename]:
    theirs, ours = "vision_encoder.backbone", "image_encoder.trunk"
    yield f"{theirs}.pos_embed", f"{ours}.pos_embed"
    yield f"{theirs}.pos_embed_window", f"{ours}.pos_embed_window"
    yield f"{theirs}.patch_embed.projection.*", f"{ours}.patch_embed.proj.*"
    yield f"{theirs}.blocks.*.layer_norm*.*", f"{ours}.blocks.*.norm*.*"
    yield f"{theirs}.blocks.*.attn.*.*", f"{ours}.blocks.*.attn.*.*"
    yield from _two_layers(f"{theirs}.blocks.*.mlp", f"{ours}.blocks.*.mlp")
    yield f"{theirs}.blocks.*.proj.*", f"{ours}.blocks.*.proj.*"
    yield "vision_encoder.neck.convs.*.*", "image_encoder.neck.convs.*.conv.*"


def _prompt_encoder() -> Iterator[Rename]:
    yield _POSITIONS, "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    places = {"conv1": 0, "layer_norm1": 1, "conv2": 3, "layer_norm2": 4, "conv3": 6}
    for name, place in places.items():
        ours = f"sam_prompt_encoder.mask_downscaling.{place}.*"
        yield f"prompt_encoder.mask_embed.{name}.*", ours
    for name in ("no_mask_embed", "not_a_point_embed"):
        yield f"prompt_encoder.{name}.weight", f"sam_prompt_encoder.{name}.weight"


def _mask_decoder() -> Iterator[Rename]:
    theirs, ours = "mask_decoder", "sam_mask_decoder"
    for name in ("iou_token", "mask_tokens", "obj_score_token", "conv_s0", "conv_s1"):
        yield f"{theirs}.{name}.*", f"{ours}.{name}.*"
    layers = "transformer.layers.*"
    for name in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
        yield from _attention(f"{theirs}.{layers}.{name}", f"{ours}.{layers}.{name}")
    yield f"{theirs}.{layers}.layer_norm*.*", f"{ours}.{layers}.norm*.*"
    yield from _two_layers(f"{theirs}.{layers}.mlp", f"{ours}.{layers}.mlp")
    last = "transformer.final_attn_token_to_image"
    yield from _attention(f"{theirs}.{last}", f"{ours}.{last}")
    yield f"{theirs}.transformer.layer_norm_final_attn.*", f"{ours}.transformer.norm_final_attn.*"
    places = {"upscale_conv1": 0, "upscale_layer_norm": 1, "upscale_conv2": 3}
    for name, place in places.items():
        yield f"{theirs}.{name}.*", f"{ours}.output_upscaling.{place}.*"
    for name in ("output_hypernetworks_mlps.*", "iou_prediction_head", "pred_obj_score_head"):
        yield from _three_layers(f"{theirs}.{name}", f"{ours}.{name}")


def _memory() -> Iterator[Rename]:
    yield "memory_temporal_positional_encoding", "maskmem_tpos_enc"
    yield "no_memory_embedding", "no_mem_embed"
    yield "no_memory_positional_encoding", "no_mem_pos_enc"
    yield "no_object_pointer", "no_obj_ptr"
    yield "occlusion_spatial_embedding_parameter", "no_obj_embed_spatial"
    yield "mask_downsample.*", "mask_downsample.*"
    yield from _three_layers("object_pointer_proj", "obj_ptr_proj")
    yield "temporal_positional_encoding_projection_layer.*", "obj_ptr_tpos_proj.*"
    layers = "memory_attention.layers.*"
    for name in ("self_attn", "cross_attn_image"):
        yield from _attention(f"{layers}.{name}", f"{layers}.{name}")
    for name in ("linear1", "linear2"):
        yield f"{layers}.{name}.*", f"{layers}.{name}.*"
    yield f"{layers}.layer_norm*.*", f"{layers}.norm*.*"
    yield "memory_attention.layer_norm.*", "memory_attention.norm.*"


def _memory_encoder() -> Iterator[Rename]:
    theirs, ours = "memory_encoder.mask_downsampler", "memory_encoder.mask_downsampler.encoder"
    for layer in range(4):  # a convolution, a norm and a function without weights each
        yield f"{theirs}.layers.{layer}.conv.*", f"{ours}.{3 * layer}.*"
        yield f"{theirs}.layers.{layer}.layer_norm.*", f"{ours}.{3 * layer + 1}.*"
    yield f"{theirs}.final_conv.*", f"{ours}.12.*"
    yield "memory_encoder.feature_projection.*", "memory_encoder.pix_feat_proj.*"
    yield "memory_encoder.projection.*", "memory_encoder.out_proj.*"
    theirs, ours = "memory_encoder.memory_fuser.layers.*", "memory_encoder.fuser.layers.*"
    yield f"{theirs}.scale", f"{ours}.gamma"
    yield f"{theirs}.depthwise_conv.*", f"{ours}.dwconv.*"
    yield f"{theirs}.layer_norm.*", f"{ours}.norm.*"
    yield f"{theirs}.pointwise_conv*.*", f"{ours}.pwconv*.*"


def _renamer(renames: list[Rename]) -> Callable[[str], str | None]:
    """Make of pairs with ``*`` what renames one name, or says that none of them fits."""
    compiled = [
        (re.compile(re.escape(name).replace(r"\*", "([^.]+)")), other.replace("*", "{}"))
        for name, other in renames
    ]

    def rename(name: str) -> str | None:
        for pattern, other in compiled:
            fitting = pattern.fullmatch(name)
            if fitting is not None:
                return other.format(*fitting.groups())
        return None

    return rename


_RENAMES = [
    *_encoder(),
    *_prompt_encoder(),
    *_mask_decoder(),
    *_memory(),
    *_memory_encoder(),
]
_TO_OURS = _renamer(_RENAMES)
_TO_THEIRS = _renamer([(ours, theirs) for theirs, ours in _RENAMES])
