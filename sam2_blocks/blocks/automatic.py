"""``sam2/automatic@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import supervision as sv

from sam2_blocks.blocks.embed import embed
from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.strategies.automatic import generate_masks
from sam2_blocks.strategies.crops import generate_masks_in_crops
from sam2_blocks.values import (
    AutomaticMasks,
    AutomaticSettings,
    CropSettings,
    Embedding,
    PromptSet,
)

Settings = TypeVar("Settings", AutomaticSettings, CropSettings)


class Automatic:
    """Segment everything in a picture; pictures share the encoder's batch, not the decoder's."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, items: Sequence[Any]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        whole = [item for item in items if item.embedding is None and item.crop_n_layers == 0]
        made = iter(embed(self._resources, whole))
        return [
            self._in_crops(item)
            if item.crop_n_layers
            else self._in_whole(item, item.embedding or next(made))
            for item in items
        ]

    def _in_whole(self, item: Any, embedding: Embedding) -> Mapping[str, Any]:
        executor = self._resources.executor_of(embedding)
        found = generate_masks(executor, embedding, _settings(AutomaticSettings, item))
        return {"predictions": _to_detections(found, embedding.image_id)}

    def _in_crops(self, item: Any) -> Mapping[str, Any] | Exception:
        if item.image is None:
            return ValueError(
                f"crop_n_layers = {item.crop_n_layers} cuts the picture itself, and got its "
                "embedding. Give 'image' instead of 'embedding', or no crop_n_layers."
            )
        executor = self._resources.executor(item.model, device=item.device, dtype=item.dtype)
        settings, crops = _settings(AutomaticSettings, item), _settings(CropSettings, item)
        try:
            found = generate_masks_in_crops(executor, item.image, settings, crops)
        except ValueError as error:  # settings that do not fit together
            return error
        return {"predictions": _to_detections(found, item.image.id)}


def _settings(of: type[Settings], item: Any) -> Settings:
    return of(**{field.name: getattr(item, field.name) for field in fields(of)})


def _to_detections(found: AutomaticMasks, image_id: str) -> sv.Detections:
    detections = to_detections(
        found.prediction, prompts=PromptSet.from_points(found.point_xy), image_id=image_id
    )
    detections.data["stability_score"] = found.stability_score
    return detections
