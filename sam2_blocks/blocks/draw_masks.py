"""``draw/masks@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
import supervision as sv
from supervision.annotators.utils import resolve_color

from sam2_blocks.engine.resources import Resources
from sam2_blocks.formats.overlay import Label, draw_labels, draw_prompts
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.rle import rle_area
from sam2_blocks.values import Hw, Image, PromptSet


class DrawMasksItem(Protocol):
    """One picture; see the manifest."""

    image: Image
    predictions: sv.Detections
    masks: bool
    boxes: bool
    prompts: PromptSet | None
    labels: bool | None
    label_size: float | None
    font: str
    opacity: float
    color_by: Literal["index", "class"]


class DrawMasks:
    """Draw masks and boxes with supervision's annotators, then clicks and labels."""

    def __init__(self, resources: Resources) -> None:
        pass

    def run(self, items: Sequence[DrawMasksItem]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        return [{"image": _draw(item)} for item in items]


def _draw(item: DrawMasksItem) -> Image:
    found = _visible(item.predictions, item.image.hw)
    look = _lookup(item.color_by, found)
    width = max(1, round(min(item.image.hw) / 250))
    scene = np.ascontiguousarray(item.image.pixels[..., ::-1])  # annotators draw in BGR
    if len(found):
        if item.masks and found.mask is not None:
            scene = sv.MaskAnnotator(opacity=item.opacity, color_lookup=look).annotate(scene, found)
            scene = sv.PolygonAnnotator(thickness=width, color_lookup=look).annotate(scene, found)
        if item.boxes:
            scene = sv.BoxAnnotator(thickness=width, color_lookup=look).annotate(scene, found)
    pixels = np.ascontiguousarray(scene[..., ::-1])
    if item.prompts is not None:
        pixels = draw_prompts(pixels, item.prompts, size_px=2.0 * width)
    if len(found) and _wants_labels(item.labels, found):
        size_px = item.label_size or 10.0 + 2 * width
        pixels = draw_labels(pixels, _labels(found, look), size_px=size_px, family=item.font)
    return replace(item.image, pixels=np.ascontiguousarray(pixels))


def _wants_labels(wanted: bool | None, found: sv.Detections) -> bool:
    """By themselves, masks that were found without prompts have none: all are called object."""
    if wanted is not None:
        return wanted
    stability = found.data.get("stability_score")
    return stability is None or bool(np.isnan(np.asarray(stability, float)).all())


def _lookup(color_by: str, found: sv.Detections) -> sv.ColorLookup:
    """What decides a detection's colour; tracks keep theirs from frame to frame."""
    if color_by == "class":
        return sv.ColorLookup.CLASS
    return sv.ColorLookup.INDEX if found.tracker_id is None else sv.ColorLookup.TRACK


def _visible(found: sv.Detections, image_hw: Hw) -> sv.Detections:
    """Those that have a place in the picture; an empty mask has none, and no box either."""
    if found.mask is None or not len(found):
        return found.select(np.isfinite(found.xyxy).all(axis=1))
    areas = [rle_area(rle) for rle in to_rles(found, image_hw)]
    return found.select(np.array(areas) > 0)


def _labels(found: sv.Detections, look: sv.ColorLookup) -> list[Label]:
    """What to write, of the largest object first: a small one is easier to find a place for."""
    palette = sv.ColorPalette.DEFAULT
    areas = (found.xyxy[:, 2:] - found.xyxy[:, :2]).prod(axis=1)
    texts = _texts(found)
    return [
        Label(
            texts[index],
            found.xyxy[index].tolist(),
            resolve_color(palette, found, index, look).as_rgb(),
        )
        for index in np.argsort(-areas, kind="stable").tolist()
    ]


def _texts(found: sv.Detections) -> list[str]:
    """Name of the class, after the id of a track, before the confidence where there is one."""
    names = [str(name) for name in found.data.get("class_name", ["object"] * len(found))]
    if found.tracker_id is not None:
        names = [f"#{key} {name}" for key, name in zip(found.tracker_id, names, strict=True)]
    if found.confidence is None:
        return names
    return [f"{name} {value:.2f}" for name, value in zip(names, found.confidence, strict=True)]
