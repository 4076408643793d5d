"""``sam2/automatic@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import supervision as sv

from sam2_blocks.automatic import generate_masks
from sam2_blocks.blocks.embed import embed
from sam2_blocks.detections import to_detections
from sam2_blocks.resources import Resources
from sam2_blocks.values import AutomaticSettings, Embedding, PromptSet


class Automatic:
    """Segment everything in a picture; pictures share the encoder's batch, not the decoder's."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, items: Sequence[Any]) -> Sequence[Mapping[str, Any] | Exception]:
        """See the manifest."""
        made = iter(embed(self._resources, [item for item in items if item.embedding is None]))
        return [
            {"predictions": self._segment(item, item.embedding or next(made))} for item in items
        ]

    def _segment(self, item: Any, embedding: Embedding) -> sv.Detections:
        settings = AutomaticSettings(
            **{field.name: getattr(item, field.name) for field in fields(AutomaticSettings)}
        )
        executor = self._resources.executor_of(embedding)
        found = generate_masks(executor, embedding, settings)
        detections = to_detections(
            found.prediction,
            prompts=PromptSet.from_points(found.point_xy),
            image_id=embedding.image_id,
        )
        detections.data["stability_score"] = found.stability_score
        return detections
