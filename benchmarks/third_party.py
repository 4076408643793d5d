"""Peers from packages that this project does not need; each is skipped where its own is absent."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import CocoRle
from benchmarks.peers import (
    Lap,
    Peer,
    answering,
    encode_best,
    feature_sizes,
    make_torchvision_importable,
    no_lap,
    replaced,
)
from benchmarks.scenes import Scene
from benchmarks.weights import Weights

LOGIT_TOLERANCE = 1e-4  # relative to the largest logit

# Names in the ``sam2`` package to names in `transformers`; patterns are applied in this order.
RENAMED = (
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"\bpatch_embed\.proj\.", "patch_embed.projection."),
    (r"\bnorm(\d)\.", r"layer_norm\1."),
    (r"\bnorm_final_attn\.", "layer_norm_final_attn."),
    (r"\bout_proj\.", "o_proj."),
    (r"\bpe_layer\.positional_encoding_gaussian_matrix$", "shared_embedding.positional_embedding"),
    (r"\bmask_downscaling\.0\.", "mask_embed.conv1."),
    (r"\bmask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"\bmask_downscaling\.3\.", "mask_embed.conv2."),
    (r"\bmask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"\bmask_downscaling\.6\.", "mask_embed.conv3."),
    (r"\boutput_upscaling\.0\.", "upscale_conv1."),
    (r"\boutput_upscaling\.1\.", "upscale_layer_norm."),
    (r"\boutput_upscaling\.3\.", "upscale_conv2."),
    (r"((?:mlps\.\d|head)\.)layers\.0\.", r"\1proj_in."),  # three layers
    (r"((?:mlps\.\d|head)\.)layers\.1\.", r"\1layers.0."),
    (r"((?:mlps\.\d|head)\.)layers\.2\.", r"\1proj_out."),
    (r"\bmlp\.layers\.0\.", "mlp.proj_in."),  # two layers
    (r"\bmlp\.layers\.1\.", "mlp.proj_out."),
)
# Of the video model, which `Sam2Model` lacks.
VIDEO_ONLY = re.compile(r"^(memory_|maskmem_|mask_downsample|obj_ptr_|no_obj_|no_mem_pos_enc)")


class Transformers(Peer):
    """Hugging Face ``Sam2Model`` and ``Sam2Processor`` as their documentation shows them.

    Its processor rounds the resized picture to 8 bits, so its masks are near the official ones,
    not equal; on equal input its logits are, which is checked first.
    """

    name = "transformers"
    exact = False

    @classmethod
    def missing(cls) -> str:
        return "" if importlib.util.find_spec("transformers") else "needs: pip install transformers"

    def __init__(self, weights: Weights) -> None:
        make_torchvision_importable()
        from transformers import Sam2ImageProcessor, Sam2Model, Sam2Processor

        network = weights.network
        self._model = Sam2Model(transformers_config(network)).eval().to(network.device)
        self._model.load_state_dict(dict(_convert(network.state_dict())))
        side = {"height": network.image_size, "width": network.image_size}
        mask = {axis: px // 4 for axis, px in side.items()}
        self._processor = Sam2Processor(Sam2ImageProcessor(size=side, mask_size=mask))
        self._levels: list[Tensor] = []
        self._check_logits(network)

    @torch.inference_mode()
    def embed(self, pixels: np.ndarray) -> None:
        inputs = self._processor(images=pixels, return_tensors="pt").to(self._model.device)
        self._levels = self._model.get_image_embeddings(inputs["pixel_values"])

    @torch.inference_mode()
    def segment(self, scene: Scene, lap: Lap = no_lap) -> list[CocoRle]:
        sizes = torch.tensor([scene.image_hw])
        inputs = self._processor(
            original_sizes=sizes, return_tensors="pt", **self._prompts(scene)
        ).to(self._model.device)
        inputs.pop("original_sizes")
        decoder = self._model.mask_decoder
        given = answering(decoder.forward, scene.logits, scene.iou)
        with replaced(decoder, "forward", given):
            outputs = self._model(**inputs, image_embeddings=self._levels)
        [masks] = self._processor.post_process_masks(outputs.pred_masks, sizes)  # (N, 3, H, W)
        lap("segment")
        answers = encode_best(masks.cpu().numpy(), outputs.iou_scores[0].cpu().numpy())
        lap("encode")
        return answers

    @torch.inference_mode()
    def encode(self, batch: Tensor) -> None:
        self._model.get_image_embeddings(batch)

    def _prompts(self, scene: Scene) -> dict[str, Any]:
        if scene.click_xy is None:
            return {"input_boxes": [scene.boxes_xyxy.tolist()]}
        return {"input_points": [[[scene.click_xy.tolist()]]], "input_labels": [[[1]]]}

    @torch.inference_mode()
    @torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # whose rounding is larger
    def _check_logits(self, network: Any) -> None:
        """Compare the logits of a box with those of the network the weights are from."""
        size = network.image_size
        generator = torch.Generator().manual_seed(0)
        batch = torch.randn(1, 3, size, size, generator=generator).to(network.device)
        box = torch.tensor([[size * 0.2, size * 0.3, size * 0.7, size * 0.8]], device=batch.device)
        ours = self._model(pixel_values=batch, input_boxes=box[None]).pred_masks[0]
        *fine, coarse = network.forward_image(batch)["backbone_fpn"][-3:]
        sparse, dense = network.sam_prompt_encoder(
            points=(box.view(1, 2, 2), torch.tensor([[2, 3]], device=batch.device)),
            boxes=None,
            masks=None,
        )
        theirs, *_ = network.sam_mask_decoder(
            image_embeddings=coarse + network.no_mem_embed.view(1, -1, 1, 1),
            image_pe=network.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=False,
            high_res_features=fine,
        )
        difference = float((ours - theirs).abs().max() / theirs.abs().max())
        if not difference < LOGIT_TOLERANCE:
            raise RuntimeError(
                f"transformers: its logits differ from the official ones by {difference:.1e} of "
                f"the largest, more than {LOGIT_TOLERANCE}: the conversion of weights is outdated."
            )


class Roboflow(Peer):
    """``SAM2Torch`` of Roboflow's ``inference-models``, on the network that all share."""

    name = "SAM2Torch"

    @classmethod
    def missing(cls) -> str:
        found = importlib.util.find_spec("inference_models")
        return "" if found else "needs: pip install inference-models"

    def __init__(self, weights: Weights) -> None:
        make_torchvision_importable()
        from inference_models.models.sam2 import cache, sam2_torch
        from sam2.utils.transforms import SAM2Transforms

        self._network = weights.network
        self._model = sam2_torch.SAM2Torch(
            model=self._network,
            transform=SAM2Transforms(resolution=self._network.image_size, mask_threshold=0.0),
            device=self._network.device,
            max_batch_size=sam2_torch.MAX_SAM2_BATCH_SIZE,
            sam2_image_embeddings_cache=cache.Sam2ImageEmbeddingsCacheNullObject(),
            sam2_low_resolution_masks_cache=cache.Sam2LowResolutionMasksCacheNullObject(),
            sam2_allow_client_generated_hash_ids=False,
        )
        self._model._bb_feat_sizes = feature_sizes(self._network)  # it knows 1024 px only
        self._embeddings: Any = None

    def embed(self, pixels: np.ndarray) -> None:
        self._embeddings = self._model.embed_images(pixels)

    def segment(self, scene: Scene, lap: Lap = no_lap) -> list[CocoRle]:
        if scene.click_xy is None:
            prompts = {"boxes": scene.boxes_xyxy}
        else:
            labels = np.ones((1, 1), np.int32)
            prompts = {"point_coordinates": scene.click_xy[None, None], "point_labels": labels}
        decoder = self._network.sam_mask_decoder
        given = answering(decoder.forward, scene.logits, scene.iou)
        with replaced(decoder, "forward", given):
            [answer] = self._model.segment_images(embeddings=self._embeddings, **prompts)
        lap("segment")
        answers = encode_best(answer.masks.cpu().numpy(), answer.scores.cpu().numpy())
        lap("encode")
        return answers

    @torch.inference_mode()
    def encode(self, batch: Tensor) -> None:
        self._model.forward_image_embeddings(
            batch, [""] * len(batch), [tuple(batch.shape[-2:])] * len(batch)
        )


def _convert(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Rename the tensors of an official state dict, leaving out those of the video model."""
    points = [value for name, value in state.items() if ".point_embeddings." in name]
    yield "prompt_encoder.point_embed.weight", torch.cat(points)
    for name, value in state.items():
        if VIDEO_ONLY.match(name) or ".point_embeddings." in name:
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        yield name, value
        if name.endswith("shared_embedding.positional_embedding"):
            yield "shared_image_embedding.positional_embedding", value


def transformers_config(network: Any) -> Any:
    """Describe the architecture of an official network to `transformers`."""
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2VisionConfig

    trunk, neck = network.image_encoder.trunk, network.image_encoder.neck
    ends = [-1, *trunk.stage_ends]
    backbone = Sam2HieraDetConfig(
        hidden_size=trunk.channel_list[-1],
        image_size=[network.image_size] * 2,
        blocks_per_stage=[stop - start for start, stop in itertools.pairwise(ends)],
        embed_dim_per_stage=trunk.channel_list[::-1],
        num_attention_heads_per_stage=[trunk.blocks[end].attn.num_heads for end in ends[1:]],
        window_size_per_stage=list(trunk.window_spec),
        window_positional_embedding_background_size=list(trunk.pos_embed.shape[-2:]),
        global_attention_blocks=list(trunk.global_att_blocks),
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=trunk.channel_list,
        backbone_feature_sizes=[list(size) for size in feature_sizes(network)],
        fpn_hidden_size=neck.d_model,
        fpn_top_down_levels=list(neck.fpn_top_down_levels),
    )
    width = network.sam_prompt_encoder.embed_dim
    transformer = network.sam_mask_decoder.transformer
    return Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": width, "image_size": network.image_size},
        mask_decoder_config={
            "hidden_size": width,
            "iou_head_hidden_dim": network.sam_mask_decoder.iou_prediction_head.layers[
                0
            ].out_features,
            "mlp_dim": transformer.mlp_dim,
            "num_attention_heads": transformer.num_heads,
        },
    )
