"""``export/coco@v1``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import supervision as sv
from pycocotools import mask as coco_mask

from sam2_blocks.files import write_text
from sam2_blocks.masks import coco_to_rle, rle_area, rle_to_coco
from sam2_blocks.polygons import rle_to_polygons
from sam2_blocks.resources import Resources


class ExportCoco:
    """Collect annotations of all pictures and write each COCO file once, when the run ends."""

    def __init__(self, resources: Resources) -> None:
        self._out_dir = resources.out_dir
        self._files: dict[Path, dict[str, dict[str, Any]]] = {}

    def run(self, items: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """See the manifest."""
        results = []
        for item in items:
            row = _picture(item)
            self._files.setdefault(self._out_dir / item.path, {})[item.image.id] = row
            results.append({"annotations": row["annotations"]})
        return results

    def finish(self) -> None:
        """Write the files; also after an interruption, with the pictures done until then."""
        for path, pictures in self._files.items():
            write_text(path, json.dumps(_merge(pictures), indent=1) + "\n")
        self._files.clear()


def _picture(item: Any) -> dict[str, Any]:
    height, width = item.image.hw
    annotations = [_annotation(item, index) for index in range(len(item.predictions))]
    return {"width": width, "height": height, "annotations": annotations}


def _annotation(item: Any, index: int) -> dict[str, Any]:
    found: sv.Detections = item.predictions
    rle = coco_to_rle(found.data["rle_mask"][index])
    names = found.data.get("class_name")
    row: dict[str, Any] = {
        "category": "object" if names is None else str(names[index]),
        "class_id": None if found.class_id is None else int(found.class_id[index]),
        "bbox": coco_mask.toBbox(rle_to_coco(rle)).tolist(),
        "area": int(rle_area(rle)),
        "iscrowd": 0,
    }
    if found.confidence is not None:
        row["score"] = float(found.confidence[index])
    if item.segmentation == "rle":
        row["segmentation"] = rle_to_coco(rle)
    else:
        traced = rle_to_polygons(rle, hole_policy="bridge", tolerance_px=item.tolerance)
        row["segmentation"] = [ring.ravel().tolist() for ring in traced.outer]
    return row


def _merge(pictures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Number pictures, annotations and categories."""
    rows = [row for picture in pictures.values() for row in picture["annotations"]]
    category_ids = _category_ids(rows)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (file_name, picture) in enumerate(pictures.items(), start=1):
        size = {"width": picture["width"], "height": picture["height"]}
        images.append({"id": image_id, "file_name": file_name, **size})
        for row in picture["annotations"]:
            numbered = {k: v for k, v in row.items() if k not in ("category", "class_id")}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_ids[row["category"]],
                    **numbered,
                }
            )
    categories = [{"id": number, "name": name} for name, number in category_ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _category_ids(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The detector's class ids where each names one class, so that COCO in is COCO out.

    Else the names are numbered from 1 in alphabetical order.
    """
    pairs = {(row["category"], row["class_id"]) for row in rows}
    names, ids = {name for name, _ in pairs}, {class_id for _, class_id in pairs}
    if len(pairs) == len(names) == len(ids) and None not in ids:
        return dict(sorted(pairs, key=lambda pair: pair[1]))
    return {name: index for index, name in enumerate(sorted(names), start=1)}
