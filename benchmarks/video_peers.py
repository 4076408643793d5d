"""The ways to follow boxes through a folder of JPEGs: ours, and three others.

Each takes a loaded executor of ours for its weights, and yields the masks of each frame as
compressed COCO run lengths: what a user keeps. Ultralytics builds the four public architectures at
1024 px only, so not ``nano``, and reads videos, not folders; it is AGPL, and nothing of it is here.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil
from pycocotools import mask as coco_mask

from benchmarks.peers import make_torchvision_importable
from benchmarks.third_party import transformers_config
from sam2_blocks.executor.weights.layouts import to_transformers
from sam2_blocks.masks.rle import rle_to_coco
from sam2_blocks.strategies.tracking import track_frames
from sam2_blocks.values import Image, PromptSet

CLIP = "clip.mp4"
"""The JPEGs as a video, for who reads no folders."""
ULTRALYTICS = {
    "sam2.1/hiera_tiny": "sam2.1_t.pt",
    "sam2.1/hiera_small": "sam2.1_s.pt",
    "sam2.1/hiera_b_plus": "sam2.1_b.pt",
    "sam2.1/hiera_large": "sam2.1_l.pt",
}
"""What Ultralytics calls the checkpoints of the architectures that it builds."""

Track = Callable[[Any, Path, np.ndarray], Iterator[list[str]]]


def track_ours(executor: Any, folder: Path, boxes: np.ndarray) -> Iterator[list[str]]:
    """Follow boxes with a session."""
    frames = (Image(np.asarray(Pil.open(path))) for path in sorted(folder.glob("*.jpg")))
    with executor.track() as session:
        for tracks in track_frames(session, frames, PromptSet.from_boxes(boxes)):
            yield [str(rle_to_coco(rle)["counts"]) for rle in tracks.prediction.rles]


def track_official(executor: Any, folder: Path, boxes: np.ndarray) -> Iterator[list[str]]:
    """Follow boxes with ``SAM2VideoPredictor`` around the same network."""
    make_torchvision_importable()
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    predictor: Any = SAM2VideoPredictor.__new__(SAM2VideoPredictor)
    predictor.__dict__ = dict(executor.model.network.__dict__)
    predictor.__dict__.update(
        binarize_mask_from_pts_for_mem_enc=True,
        fill_hole_area=0,
        non_overlap_masks=False,
        clear_non_cond_mem_around_input=False,
        add_all_frames_to_correct_as_cond=False,
    )
    state = predictor.init_state(str(folder))
    for key, box in enumerate(boxes):
        predictor.add_new_points_or_box(state, 0, key, box=box)
    for _, _, logits in predictor.propagate_in_video(state):
        yield _encode(logits[:, 0] > 0)


def track_transformers(executor: Any, folder: Path, boxes: np.ndarray) -> Iterator[list[str]]:
    """Follow boxes with ``Sam2VideoModel`` and ``Sam2VideoProcessor`` as documented.

    Its processor resizes with another filter, so its masks are near the official ones.
    """
    model, processor = load_transformers(executor)
    frames = [np.asarray(Pil.open(path)) for path in sorted(folder.glob("*.jpg"))]
    session = processor.init_video_session(video=frames, inference_device=model.device)
    processor.add_inputs_to_inference_session(
        inference_session=session,
        frame_idx=0,
        obj_ids=list(range(len(boxes))),
        input_boxes=[boxes.tolist()],
    )
    sizes = [[session.video_height, session.video_width]]
    with torch.inference_mode():
        model(session, frame_idx=0)
        for output in model.propagate_in_video_iterator(session):
            masks = processor.post_process_masks([output.pred_masks], original_sizes=sizes)[0]
            yield _encode(masks[:, 0])


@functools.cache
def load_transformers(executor: Any) -> tuple[Any, Any]:
    """The same weights as a ``Sam2VideoModel``, and its processor; once an executor."""
    make_torchvision_importable()
    from transformers import (
        Sam2ImageProcessor,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VideoProcessor,
        Sam2VideoVideoProcessor,
    )

    network = executor.model.network
    pictures, layer = transformers_config(network), network.memory_attention.layers[0]
    encoder = network.memory_encoder
    config = Sam2VideoConfig(
        vision_config=pictures.vision_config,
        prompt_encoder_config=pictures.prompt_encoder_config.to_dict(),
        mask_decoder_config=pictures.mask_decoder_config.to_dict(),
        image_size=network.image_size,
        num_maskmem=network.num_maskmem,
        memory_attention_hidden_size=network.hidden_dim,
        memory_attention_num_layers=len(network.memory_attention.layers),
        memory_attention_feed_forward_hidden_size=layer.dim_feedforward,
        memory_attention_rope_feat_sizes=[network.image_size // network.backbone_stride] * 2,
        memory_encoder_hidden_size=network.hidden_dim,
        memory_encoder_output_channels=network.mem_dim,
        mask_downsampler_embed_dim=network.hidden_dim,
        memory_fuser_num_layers=len(encoder.fuser.layers),
        memory_fuser_embed_dim=network.hidden_dim,
        memory_fuser_intermediate_dim=encoder.fuser.layers[0].pwconv1.out_features,
    )
    model = Sam2VideoModel(config).eval().to(network.device)
    model.load_state_dict(to_transformers(network.state_dict(), source="benchmark"))
    size = {"height": network.image_size, "width": network.image_size}
    processor = Sam2VideoProcessor(
        Sam2ImageProcessor(size=size, mask_size={axis: px // 4 for axis, px in size.items()}),
        Sam2VideoVideoProcessor(size=size),
    )
    return model, processor


def track_ultralytics(executor: Any, folder: Path, boxes: np.ndarray) -> Iterator[list[str]]:
    """Follow boxes with Ultralytics' ``SAM2VideoPredictor`` in the video beside the JPEGs.

    It keeps the shape of frames and fills the square up, so its masks are near the official ones.
    Objects that it does not see have no row, hence their numbers are looked up.
    """
    predictor = load_ultralytics(executor)
    predictor.inference_state = {}  # else it goes on with the clip before
    for result in predictor(source=str(folder / CLIP), bboxes=boxes.tolist(), stream=True):
        masks = torch.zeros(len(boxes), *result.orig_shape, dtype=torch.bool)
        if result.masks is not None:
            masks[result.boxes.cls.long()] = result.masks.data.bool()
        yield _encode(masks)


@functools.cache
def load_ultralytics(executor: Any) -> Any:
    """The same weights in Ultralytics' predictor, which knows an architecture by a file's name."""
    make_torchvision_importable()
    from ultralytics.models.sam import SAM2VideoPredictor

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ULTRALYTICS[executor.spec.model])
        torch.save({"model": executor.model.network.state_dict()}, path)
        settings = {"model": str(path), "imgsz": executor.model.image_size, "mode": "predict"}
        settings |= {"task": "segment", "conf": 0.0, "save": False, "verbose": False}
        predictor = SAM2VideoPredictor(overrides=settings | {"device": executor.spec.device})
        predictor.setup_model(verbose=False)
    predictor.non_overlap_masks = False
    return predictor


def _encode(masks: torch.Tensor) -> list[str]:
    dense = masks.cpu().numpy().astype(np.uint8)  # (N, H, W)
    found = coco_mask.encode(np.asfortranarray(dense.transpose(1, 2, 0)))
    return [rle["counts"].decode() for rle in found]


TRACKERS: dict[str, Track] = {
    "official": track_official,
    "transformers": track_transformers,
    "ultralytics": track_ultralytics,
    "sam2_blocks": track_ours,
    "sam2_blocks + openvino": track_ours,
}


PREPARE: dict[str, Callable[[Any], Any]] = {
    "transformers": load_transformers,
    "ultralytics": load_ultralytics,
}
"""What is done before the clock starts: a model is loaded once, not for each clip."""
EXACT = ("sam2_blocks", "sam2_blocks + openvino")
"""Whose masks are to be the official ones."""


BACKENDS = {"sam2_blocks + openvino": "openvino"}
"""What computes the network, where it is not torch."""


def missing(peer: str, model: str) -> str:
    """Say what a peer wants to follow with a model that is not here; empty if nothing."""
    backend = BACKENDS.get(peer)
    if backend is not None and find_spec(backend) is None:
        return f"needs: pip install {backend}"
    if peer in PREPARE and find_spec(peer) is None:
        return f"needs: pip install {peer}"
    if peer == "ultralytics" and model not in ULTRALYTICS:
        return f"builds {', '.join(ULTRALYTICS)} only"
    return ""
