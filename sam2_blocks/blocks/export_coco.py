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
    """Number pictures, annotations and categories; categories in alphabetical order."""
    names = sorted({row["category"] for pic in pictures.values() for row in pic["annotations"]})
    category_ids = {name: index for index, name in enumerate(names, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (file_name, picture) in enumerate(pictures.items(), start=1):
        size = {"width": picture["width"], "height": picture["height"]}
        images.append({"id": image_id, "file_name": file_name, **size})
        for row in picture["annotations"]:
            numbered = {key: value for key, value in row.items() if key != "category"}
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
