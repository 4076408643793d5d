"""The official video predictor around one of our networks, a clip, and networks that track."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil
from PIL import ImageDraw
from ruamel.yaml import YAML

from sam2_blocks.executor import load
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.loading import NANO_FOLDER
from sam2_blocks.executor.weights.upstream import sam2_folder
from sam2_blocks.values import Image

SIZE_WH = (320, 240)
MASKMEM = 7
IMAGE_SIZE = 256
SCORE_BIAS = 0.3


def load_tracking(
    name: str, folder: Path, seed: int = 3, backend: str = "torch", device: str = "cpu"
) -> Sam2Executor:
    """Load an architecture with random weights that see their objects most of the time."""
    files = {
        "nano": NANO_FOLDER / "nano.yaml",
        "hiera_tiny": sam2_folder() / "configs/sam2.1/sam2.1_hiera_t.yaml",
    }
    document = YAML(typ="safe").load(files[name])
    document["model"].update(image_size=IMAGE_SIZE, num_maskmem=MASKMEM)
    config = folder / f"{name}.yaml"
    YAML(typ="safe").dump(document, config)
    executor = load(folder / "seeded.pt", config=config, device=device, seed=seed, backend=backend)
    wake(executor.model.network)
    return executor


def wake(network: Any) -> None:
    """Make random weights tell objects apart, lose some of them, and heed what is remembered."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
            elif "no_mem" in name or "no_obj" in name or "maskmem_tpos" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            elif re.search(r"(cross_attn_image|mask_downsampler)\..*weight$", name):
                parameter.mul_(1.5)
            elif "hypernetworks" in name and "layers.2.weight" in name:
                parameter.mul_(20)
        score = network.sam_mask_decoder.pred_obj_score_head.layers[-1]
        score.weight.mul_(4)
        score.bias.fill_(SCORE_BIAS)


def write_clip(folder: Path, frames: int) -> list[Image]:
    """Draw squares that move at their own pace, and read them back as both sides see them."""
    images = []
    for frame in range(frames):
        picture = Pil.new("RGB", SIZE_WH, (60, 90, 60))
        pen = ImageDraw.Draw(picture)
        for k in range(6):
            box = box_of(k, frame)
            pen.rectangle(tuple(box), fill=(40 * k, 200 - 20 * k, 255 - 40 * k))
        path = folder / f"{frame:05d}.jpg"
        picture.save(path, quality=95)
        images.append(Image(np.asarray(Pil.open(path).convert("RGB")), id=path.name))
    return images


def box_of(k: int, frame: int) -> np.ndarray:
    """Box of the k-th square on a frame: float32, (4,)."""
    x, y = 10 + 40 * k + (k + 1) * frame % 40, 40 + 20 * k + frame
    return np.array([x, y, x + 40, y + 34], np.float32)


def official(video_class: type, executor: Sam2Executor, **settings: Any) -> Any:
    """Wrap the official predictor, as its builder configures it, around our network."""
    predictor: Any = video_class.__new__(video_class)
    predictor.__dict__ = dict(executor.model.network.__dict__)
    predictor.binarize_mask_from_pts_for_mem_enc = True
    predictor.fill_hole_area = 0  # needs a CUDA kernel; without it the predictor fills none
    predictor.non_overlap_masks = False
    predictor.clear_non_cond_mem_around_input = False
    predictor.add_all_frames_to_correct_as_cond = False
    predictor.__dict__.update(settings)
    return predictor


def propagate(
    predictor: Any, state: Any, first: int, last: int, *, reverse: bool = False
) -> Iterator[tuple[int, dict[int, tuple[np.ndarray, np.ndarray]]]]:
    """Yield frame numbers, and of each object its low-resolution logits and its mask."""
    count = abs(last - first)
    for frame, ids, masks in predictor.propagate_in_video(
        state, start_frame_idx=first, max_frame_num_to_track=count, reverse=reverse
    ):
        found = {}
        for key, mask in zip(ids, masks, strict=True):
            outputs = state["output_dict_per_obj"][state["obj_id_to_idx"][key]]
            kinds = ("cond_frame_outputs", "non_cond_frame_outputs")
            logits = next(outputs[kind][frame] for kind in kinds if frame in outputs[kind])
            low_res = logits["pred_masks"][0, 0].cpu().numpy()
            found[key] = (low_res, (mask[0] > 0).cpu().numpy())
        yield frame, found
