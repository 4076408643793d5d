"""Measure nano and write its model card and contact sheet.

python -m examples.train_nano.evaluate --photos DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import ImageDraw
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from examples.train_nano.bank import PHOTOGRAPHS, photographs
from examples.train_nano.export import load
from examples.train_nano.model import decode, embed
from examples.train_nano.prompts import Prompts, boxes_of, click, pick_segments
from examples.train_nano.scenes import Scenes
from examples.train_nano.train import correct
from sam2_blocks.executor import load as load_executor
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.masks.rle import coco_to_rle, rle_area, rle_iou, rles_to_boxes_xyxy
from sam2_blocks.values import Image, PromptSet

HERE = Path(__file__).parent
HELD_OUT_SEED, TRUTH_PX = 90_001, 384
VIDEO_HEADING = "## Video"  # the section that video_evaluate writes
# Boxes (x0, y0, x1, y1, pixels) on pictures whose licence lets us print them.
SHEET = {
    "skimage/data/coffee.png": [(76, 68, 480, 387), (171, 18, 412, 282)],
    "skimage/data/chelsea.png": [(134, 84, 211, 148)],
    "skimage/data/rocket.jpg": [(308, 125, 338, 411)],
    "skimage/data/coins.png": [(305, 14, 366, 73)],
    "skimage/data/astronaut.png": [(278, 343, 509, 511)],
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg": [(148, 21, 372, 164)],
}


def squash(images: Tensor, size: int) -> Tensor:
    """Resize (B, 3, H, W) to a square as ``SAM2ImagePredictor`` does: aspect ratio is not kept."""
    return F.interpolate(
        images, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )


def iou_of(masks: Tensor, targets: Tensor) -> Tensor:
    """IoU of bool masks (..., H, W) against targets (..., H, W); (...)."""
    both = (masks & targets).flatten(-2).sum(-1)
    return both / (masks | targets).flatten(-2).sum(-1).clamp(min=1)


@torch.inference_mode()
def predict(
    model: SAM2Base,
    embedding: tuple[Tensor, list[Tensor]],
    coords: Tensor,
    labels: Tensor,
    masks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode to three candidates, best predicted IoU first; with masks, to the single mask.

    Returns:
        Low resolution logits (B, K, M, h, w) and predicted IoU (B, K, M).
    """
    logits, iou, _ = decode(model, embedding, coords, labels, masks)
    if masks is not None:
        return logits[:, :, :1], iou[:, :, :1]
    order = iou[..., 1:].argsort(-1, descending=True) + 1
    index = order[..., None, None].expand(-1, -1, -1, *logits.shape[-2:])
    return logits.gather(2, index), iou.gather(-1, order)


def enlarge(logits: Tensor, hw: tuple[int, int]) -> Tensor:
    """Bring logits (B, K, M, h, w) to (B, K, M, *hw) and threshold them at 0."""
    return (
        F.interpolate(
            logits.flatten(0, 1), size=hw, mode="bilinear", align_corners=False
        ).unflatten(0, logits.shape[:2])
        > 0
    )


def on_boxes(model: SAM2Base, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Segment images (B, 3, H, W) by boxes (B, K, 2, 2), pixels.

    Returns:
        Masks (B, K, 3, H, W) bool and predicted IoU (B, K, 3).
    """
    size, (h, w) = model.image_size, images.shape[-2:]
    labels = torch.tensor([2, 3]).expand(*boxes.shape[:2], 2)
    scaled = boxes * torch.tensor([size / w, size / h])
    logits, iou = predict(model, embed(model, squash(images, size)), scaled, labels)
    return enlarge(logits, (h, w)), iou


@torch.inference_mode()
def on_scenes(model: SAM2Base, batches: int = 12, clicks: int = 5) -> dict[str, float]:
    """Mean IoU on held-out scenes by tight box, and by clicks on the error of the mask so far."""
    scenes, size = Scenes(seed=HELD_OUT_SEED, bank=128), model.image_size
    scores: dict[str, list[Tensor]] = {}
    for _ in range(batches):
        scene = scenes.sample(8, TRUTH_PX)
        targets, valid = pick_segments(scenes, scene, 8)
        truth = targets > 0.5
        embedding = embed(model, squash(scene.images, size))
        scale = size / TRUTH_PX
        labels = torch.tensor([2, 3]).expand(8, 8, 2)
        boxes = boxes_of(targets)
        logits, iou = predict(model, embedding, boxes * scale, labels)
        true = iou_of(enlarge(logits, (TRUTH_PX, TRUTH_PX)), truth[:, :, None])
        filled = targets.sum((-1, -2)) / (boxes[..., 1, :] - boxes[..., 0, :]).prod(-1).clamp(min=1)
        scores.setdefault("box", []).append(true[..., 0][valid])
        for name, some in (("at least", filled >= 0.3), ("less than", filled < 0.3)):
            rows = scores.setdefault(f"box, segments that fill {name} 30 % of it", [])
            rows.append(true[..., 0][valid & some])
        scores.setdefault("box, best of three", []).append(true.max(-1).values[valid])
        scores.setdefault("box, mean predicted IoU", []).append(iou[..., 0][valid])
        first = click(scenes, targets, middle=1.0)[:, :, None]
        prompts = Prompts(first, torch.ones(8, 8, 1, dtype=torch.long), targets, valid)
        logits, _ = predict(model, embedding, first * scale, prompts.labels)
        for number in range(1, clicks + 1):
            true = iou_of(enlarge(logits, (TRUTH_PX, TRUTH_PX)), truth[:, :, None])
            scores.setdefault(f"{number} clicks", []).append(true[..., 0][valid])
            if number == 1:
                scores.setdefault("1 clicks, best of three", []).append(true.max(-1).values[valid])
            chosen = logits[:, :, 0]
            prompts = correct(scenes, prompts, chosen, middle=1.0)
            coords = prompts.coords * scale
            logits, _ = predict(model, embedding, coords, prompts.labels, chosen.clamp(-32, 32))
    joined = {name: torch.cat(parts) for name, parts in scores.items()}
    rank = spearman(joined["box, mean predicted IoU"].numpy(), joined["box"].numpy())
    return {
        **{name: v.mean().item() for name, v in joined.items()},
        "box, Spearman of predicted and true IoU": rank,
    }


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlate ranks; ties are so rare among floats that their order does not matter."""
    ranks = [np.argsort(np.argsort(v)).astype(float) for v in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def on_photographs(executor: Sam2Executor, folder: Path) -> dict[str, float]:
    """Box to mask on photographs (COCO), through the executor that users run."""
    coco = json.loads((folder / "annotations.json").read_text())
    rows: list[tuple[float, float, float, float]] = []  # true, best of three, predicted, filled box
    for entry in coco["images"]:
        pixels = np.asarray(PIL.Image.open(folder / entry["file_name"]).convert("RGB"))
        segments = [a["segmentation"] for a in coco["annotations"] if a["image_id"] == entry["id"]]
        truth = [coco_to_rle(segment) for segment in segments]
        boxes = rles_to_boxes_xyxy(truth) + np.array(
            [0, 0, 1, 1]
        )  # from pixel indices to their outer edges
        embedding = executor.embed([Image(pixels)])[0]
        prompts = PromptSet.from_boxes(boxes)
        prediction = executor.segment([(embedding, prompts)], return_candidates=True)[0]
        assert prediction.candidates is not None
        for n, segment in enumerate(truth):
            three = [rle_iou(segment, rle) for rle in prediction.candidates.rles[n]]
            filled = rle_area(segment) / np.prod(boxes[n, 2:] - boxes[n, :2])
            true, says = rle_iou(segment, prediction.rles[n]), prediction.iou_prediction[n]
            rows.append((true, max(three), says, filled))
    true, best, says, filled = np.array(rows).T
    return {
        "mean IoU": float(true.mean()),
        "mean IoU, best of three": float(best.mean()),
        "mean IoU of the filled box": float(filled.mean()),
        "better than the filled box": float((true > filled).mean()),
        "Spearman of predicted and true IoU": spearman(says, true),
    }


def tile(image: Tensor, mask: Tensor, box: Tensor, note: str, side: int = 168) -> PIL.Image.Image:
    """Draw a mask (H, W) in orange and its box (2, 2) on an image (3, H, W) in 0..1."""
    orange = torch.tensor([1.0, 0.45, 0.0])[:, None, None]
    shown = torch.where(mask, 0.45 * image + 0.55 * orange, image)
    array = (shown.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    picture = PIL.Image.fromarray(array).resize((side, side))
    pen = ImageDraw.Draw(picture)
    scale = torch.tensor([side / image.shape[2], side / image.shape[1]])
    pen.rectangle(((box * scale).clamp(0, side - 1)).flatten().tolist(), outline="white")
    pen.text((3, 2), note, fill="white", stroke_width=1, stroke_fill="black")
    return picture


@torch.inference_mode()
def contact_sheet(model: SAM2Base, path: Path) -> None:
    """Print freely licensed pictures, then typical held-out scenes, then the worst ones."""
    tiles = []
    for name, boxes in SHEET.items():
        for picture in photographs((name,)):
            box = torch.tensor(boxes, dtype=torch.float).view(1, -1, 2, 2)
            masks, iou = on_boxes(model, picture[None], box)
            for k in range(len(boxes)):
                tiles.append(tile(picture, masks[0, k, 0], box[0, k], f"says {iou[0, k, 0]:.2f}"))
    scenes = Scenes(seed=HELD_OUT_SEED + 1, bank=64)
    scene = scenes.sample(16, TRUTH_PX)
    targets, valid = pick_segments(scenes, scene, 2)
    box = boxes_of(targets)
    masks, _ = on_boxes(model, scene.images, box)
    true = iou_of(masks[:, :, 0], targets > 0.5)
    ranked = [divmod(i, 2) for i in true.flatten().argsort().tolist() if valid.flatten()[i]]
    typical = ranked[len(ranked) // 2 - 4 : len(ranked) // 2 + 3]
    for b, k in [*typical, *ranked[:7]]:
        note = f"IoU {true[b, k]:.2f}"
        tiles.append(tile(scene.images[b], masks[b, k, 0], box[b, k], note))
    sheet = PIL.Image.new("RGB", (7 * 170, 3 * 170), "white")
    for i, one in enumerate(tiles):
        sheet.paste(one, (i % 7 * 170 + 1, i // 7 * 170 + 1))
    sheet.save(path, quality=82)


def table(values: dict[str, float]) -> str:
    """Format a row of a two-column Markdown table for each value."""
    return "\n".join(f"| {name} | {value:.3f} |" for name, value in values.items())


def write_card(
    model: SAM2Base, about: dict[str, str], figures: dict[str, dict[str, float]]
) -> None:
    """Fill the template with the figures and write it beside this file."""
    text = (HERE / "model_card.template").read_text()
    text = text.format(
        **{"recipe": "?", "pictures": "?", "hardware": "?", **about},
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        size=model.image_size,
        truth=TRUTH_PX,
        grid=model.image_size // 4,
        sources=", ".join(f"`{Path(name).stem}`" for name in PHOTOGRAPHS),
        scenes=table(figures["scenes"]),
        photographs=table(figures.get("photographs", {})) or "| not measured | |",
    )
    card = HERE / "MODEL_CARD.md"
    _, heading, video = card.read_text().partition(VIDEO_HEADING)
    card.write_text(f"{text}\n{heading}{video}" if heading else text)


def main() -> None:
    """Read the command line, evaluate, and write the card if the packaged weights are meant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--weights", type=Path, help="safetensors or checkpoint.pt (default: the packaged nano)"
    )
    parser.add_argument(
        "--photos", type=Path, help="folder with annotations.json (COCO) and its pictures"
    )
    parser.add_argument("--size", type=int, help="input pixels of a side (default: the config's)")
    parser.add_argument("--batches", type=int, default=12, help="of eight held-out scenes")
    args = parser.parse_args()
    model, about = load(args.weights, args.size)
    figures = {"scenes": on_scenes(model, args.batches)}
    if args.photos:
        executor = load_executor(args.weights or "nano", device="cpu")
        figures["photographs"] = on_photographs(executor, args.photos)
    print(json.dumps({"about": about, "size": model.image_size, **figures}, indent=1))
    if args.weights is None and args.size is None:
        contact_sheet(model, HERE / "contact_sheet.jpg")
        write_card(model, about, figures)


if __name__ == "__main__":
    main()
