"""Measure how nano tracks on held-out clips and write that part of its model card.

python -m examples.train_nano.video_evaluate
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from examples.train_nano.evaluate import HERE, VIDEO_HEADING, enlarge, iou_of, predict
from examples.train_nano.export import load
from examples.train_nano.model import MEAN, STD, embed
from examples.train_nano.prompts import boxes_of, choose_segments, paint_segments
from examples.train_nano.scenes import GROUND
from examples.train_nano.video_pool import least_pixels
from examples.train_nano.video_scenes import Clip, VideoScenes

HELD_OUT_SEED, FRAMES, OBJECTS = 91_001, 24, 3
HIDDEN, KEPT = 10, 0.5  # frames out of sight; IoU from which on a returned object is the same
SHOWN = (1, 2, 4, 8, 12, 16, 20, 23)  # frames of the card's table


@dataclass(frozen=True)
class Tracks:
    """Masks (T, K, S, S) bool, and object scores (T, K) whose sign says whether it is seen."""

    masks: Tensor
    scores: Tensor


@torch.inference_mode()
def track(model: SAM2Base, images: Tensor, boxes: Tensor) -> Tracks:
    """Track what boxes (K, 2, 2) bound on the first of images (T, 3, S, S), by SAM 2's own step."""
    k = len(boxes)
    labels = torch.tensor([[2, 3]], dtype=torch.int32).expand(k, 2)
    points = {"point_coords": boxes, "point_labels": labels}
    outputs: dict[str, dict[int, dict[str, Tensor]]] = {
        "cond_frame_outputs": {},
        "non_cond_frame_outputs": {},
    }
    for t, image in enumerate(images):
        normed = (image[None] - MEAN) / STD
        _, levels, encodings, sizes = model._prepare_backbone_features(model.forward_image(normed))
        answer = model.track_step(
            frame_idx=t,
            is_init_cond_frame=t == 0,
            current_vision_feats=[level.expand(-1, k, -1) for level in levels],
            current_vision_pos_embeds=[encoding.expand(-1, k, -1) for encoding in encodings],
            feat_sizes=sizes,
            point_inputs=points if t == 0 else None,
            mask_inputs=None,
            output_dict=outputs,
            num_frames=len(images),
        )
        outputs["cond_frame_outputs" if t == 0 else "non_cond_frame_outputs"][t] = answer
    answers = [answer for kind in outputs.values() for answer in kind.values()]
    masks = torch.stack([answer["pred_masks_high_res"][:, 0] > 0 for answer in answers])
    return Tracks(masks, torch.stack([answer["object_score_logits"][:, 0] for answer in answers]))


def repeat_first(model: SAM2Base, images: Tensor, boxes: Tensor) -> Tracks:
    """Baseline: the mask of the first frame on all frames."""
    first = track(model, images[:1], boxes).masks
    return Tracks(first.expand(len(images), -1, -1, -1), torch.ones(len(images), len(boxes)))


def follow_box(model: SAM2Base, images: Tensor, boxes: Tensor) -> Tracks:
    """Baseline: segment each frame anew by the box around the last mask that was not empty."""
    k, size = len(boxes), images.shape[-1]
    labels = torch.tensor([2, 3]).expand(1, k, 2)
    masks = []
    for image in images:
        logits, _ = predict(model, embed(model, image[None]), boxes[None], labels)
        masks.append(enlarge(logits, (size, size))[0, :, 0])
        around = boxes_of(masks[-1][None].float())[0]
        boxes = torch.where(masks[-1].any(-1).any(-1)[:, None, None], around, boxes)
    return Tracks(torch.stack(masks), torch.ones(len(images), k))


def boundary_of(masks: Tensor) -> Tensor:
    """Pixels of masks (..., S, S) that touch what is outside; what lies beyond is like the edge."""
    padded = F.pad(masks.flatten(0, -3).float()[:, None], (1, 1, 1, 1), mode="replicate")
    eroded = -F.max_pool2d(-padded, 3, 1)
    return (masks & ~(eroded[:, 0] > 0).view(masks.shape)).bool()


def boundary_f(masks: Tensor, truth: Tensor) -> Tensor:
    """F measure of boundaries (..., S, S) within 0.8 % of the diagonal; (...).

    Source: DAVIS, Perazzi et al. 2016, section 4; a square stands for their disk.
    """
    reach = round(0.008 * 2**0.5 * masks.shape[-1])

    def near(edges: Tensor) -> Tensor:
        grown = F.max_pool2d(edges.flatten(0, -3).float()[:, None], 2 * reach + 1, 1, reach)
        return grown[:, 0].view(edges.shape) > 0

    found, wanted = boundary_of(masks), boundary_of(truth)
    precise = (found & near(wanted)).flatten(-2).sum(-1) / found.flatten(-2).sum(-1).clamp(min=1)
    complete = (wanted & near(found)).flatten(-2).sum(-1) / wanted.flatten(-2).sum(-1).clamp(min=1)
    measure = 2 * precise * complete / (precise + complete).clamp(min=1e-6)
    neither = ~found.flatten(-2).any(-1) & ~wanted.flatten(-2).any(-1)
    return torch.where(neither, 1.0, measure)


def objects_of(scenes: VideoScenes, clip: Clip, count: int) -> Tensor:
    """Choose up to ``count`` things seen on the first frame; their masks (T, K, S, S) bool."""
    member = clip.member.clone()
    member[member[:, :GROUND].any(-1)] = False
    scene = Clip(clip.images, clip.ids, member).frame(0)
    chosen, valid = choose_segments(scenes, scene, count, least=0.008)
    return paint_segments(chosen[valid].expand(len(clip.ids), -1, -1), clip.ids.long()) > 0.5


def hidden_once(truth: Tensor) -> Tensor:
    """Tell which masks (T, K, S, S) go out of sight for HIDDEN frames or more, once, and return."""
    seen = truth.flatten(2).sum(-1) >= least_pixels(truth.shape[-1])  # (T, K)
    turns = (seen[1:] != seen[:-1]).sum(0)
    gone = (~seen).sum(0)
    return seen[0] & seen[-1] & (turns == 2) & (gone >= HIDDEN)


METHODS: dict[str, Callable[[SAM2Base, Tensor, Tensor], Tracks]] = {
    "nano tracks": track,
    "box of the last mask": follow_box,
    "first mask repeated": repeat_first,
}


def first_boxes(truth: Tensor) -> Tensor:
    """Box prompts (K, 2, 2) of the first frame of masks (T, K, S, S)."""
    return boxes_of(truth[:1].float())[0]


def on_motion(model: SAM2Base, clips: int) -> dict[str, dict[str, list[float]]]:
    """J and F by frame, where the object is seen, of each method."""
    scenes = VideoScenes(seed=HELD_OUT_SEED, bank=128)
    rows: dict[str, dict[str, list[Tensor]]] = {m: {"J": [], "F": [], "seen": []} for m in METHODS}
    visible = []
    for _ in range(clips):
        clip = scenes.clip(FRAMES, model.image_size)
        truth = objects_of(scenes, clip, OBJECTS)
        if not truth.shape[1]:
            continue
        visible.append(truth.flatten(2).sum(-1) >= least_pixels(model.image_size))
        for name, method in METHODS.items():
            tracks = method(model, clip.images, first_boxes(truth))
            rows[name]["J"].append(iou_of(tracks.masks, truth))
            rows[name]["F"].append(boundary_f(tracks.masks, truth))
            rows[name]["seen"].append((tracks.scores > 0).float())
    return summarise_motion(rows, torch.cat(visible, 1))


def summarise_motion(
    rows: dict[str, dict[str, list[Tensor]]], seen: Tensor
) -> dict[str, dict[str, list[float]]]:
    """Average each method's J, F and "seen" where objects are ``seen`` (T, objects), by frame."""
    figures: dict[str, dict[str, list[float]]] = {}
    for name, kinds in rows.items():
        joined = {kind: torch.cat(values, 1) for kind, values in kinds.items()}
        figures[name] = {
            kind: [value[t][seen[t]].mean().item() for t in range(FRAMES)]
            for kind, value in joined.items()
        }
        figures[name]["mean"] = [joined[k][1:][seen[1:]].mean().item() for k in ("J", "F", "seen")]
    figures["count"] = {"objects": [float(seen.shape[1])], "seen": seen.sum(1).tolist()}
    return figures


def on_hiding(model: SAM2Base, objects: int) -> dict[str, dict[str, float]]:
    """How objects come back after HIDDEN frames out of sight, and whether they were said lost."""
    scenes = VideoScenes(seed=HELD_OUT_SEED + 1, bank=128)
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in METHODS}
    while len(rows["nano tracks"]) < objects:
        clip = scenes.clip(FRAMES, model.image_size, hidden=HIDDEN + 1)
        truth = objects_of(scenes, clip, 2 * OBJECTS)
        truth = truth[:, hidden_once(truth)]
        if not truth.shape[1]:
            continue
        seen = truth.flatten(2).sum(-1) >= least_pixels(model.image_size)
        frames = torch.arange(FRAMES)[:, None]
        after = seen & (frames > torch.where(seen, -1, frames).amax(0))
        for name, method in METHODS.items():
            tracks = method(model, clip.images, first_boxes(truth))
            true = iou_of(tracks.masks, truth)
            for k in range(truth.shape[1]):
                back = true[after[:, k], k].mean().item()
                lost = (tracks.scores[~seen[:, k], k] < 0).float().mean().item()
                found = (tracks.scores[after[:, k], k] > 0).float().mean().item()
                rows[name].append((back, lost, found))
    return summarise_hiding(rows)


def summarise_hiding(
    rows: dict[str, list[tuple[float, float, float]]],
) -> dict[str, dict[str, float]]:
    """Average each method's J after the return, and how often "lost" and "seen" were right."""
    figures = {}
    for name, values in rows.items():
        back, lost, found = torch.tensor(values).T
        figures[name] = {
            "objects": float(len(back)),
            f"same object after {HIDDEN} hidden frames": (back >= KEPT).float().mean().item(),
            "mean J after the return": back.mean().item(),
            "hidden frames said to be lost": lost.mean().item(),
            "frames after the return said to be seen": found.mean().item(),
        }
    return figures


def motion_table(figures: dict[str, dict[str, list[float]]]) -> str:
    """J / F of every method at some frames, as Markdown."""
    lines = ["| frame | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for t in SHOWN:
        cells = [f"{figures[m]['J'][t]:.3f} / {figures[m]['F'][t]:.3f}" for m in METHODS]
        lines.append(f"| {t} | " + " | ".join(cells) + " |")
    means = [figures[m]["mean"] for m in METHODS]
    lines.append("| **mean** | " + " | ".join(f"{j:.3f} / {f:.3f}" for j, f, _ in means) + " |")
    return "\n".join(lines)


def hiding_table(figures: dict[str, dict[str, float]]) -> str:
    """What became of hidden objects, as Markdown."""
    names = [name for name in figures["nano tracks"] if name != "objects"]
    lines = ["| figure | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for name in names:
        says = name.startswith(("hidden", "frames"))  # only nano says so
        cells = [
            f"{figures[m][name]:.3f}" if m == "nano tracks" or not says else "" for m in METHODS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_section(
    about: dict[str, str],
    motion: dict[str, dict[str, list[float]]],
    hiding: dict[str, dict[str, float]],
) -> None:
    """Put the section on video into the model card, in the place of an older one."""
    section = (
        (HERE / "video_card.template")
        .read_text()
        .format(
            **{"video_" + key: "?" for key in ("recipe", "steps", "tracked", "minutes", "hardware")}
            | about,
            motion=motion_table(motion),
            hiding=hiding_table(hiding),
            objects=int(motion["count"]["objects"][0]),
            hidden_objects=int(hiding["nano tracks"]["objects"]),
            seen=motion["nano tracks"]["mean"][2],
            frames=FRAMES,
        )
    )
    card = HERE / "MODEL_CARD.md"
    before = card.read_text().partition(VIDEO_HEADING)[0].rstrip()
    card.write_text(f"{before}\n\n{VIDEO_HEADING}\n{section}")


def main() -> None:
    """Read the command line, evaluate, and write the card if the packaged weights are meant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, help="safetensors (default: the packaged nano)")
    parser.add_argument("--clips", type=int, default=28, help="of moving things")
    parser.add_argument("--hidden", type=int, default=25, help="objects that are hidden")
    args = parser.parse_args()
    model, about = load(args.weights)
    motion = on_motion(model, args.clips)
    hiding = on_hiding(model, args.hidden)
    print(json.dumps({"about": about, "motion": motion, "hiding": hiding}, indent=1))
    if args.weights is None:
        write_section(about, motion, hiding)


if __name__ == "__main__":
    main()
