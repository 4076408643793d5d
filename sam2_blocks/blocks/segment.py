"""``sam2/segment@v1``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import supervision as sv

from sam2_blocks.blocks.embed import embed
from sam2_blocks.detections import to_detections
from sam2_blocks.prompts import check_prompts
from sam2_blocks.resources import Resources
from sam2_blocks.values import Embedding, ExecutorSpec, MaskPrediction, PromptSet

Settings = tuple[ExecutorSpec, bool, float, int, int]
Result = Mapping[str, Any] | Exception


class Segment:
    """Turn boxes and points into masks; prompts of all pictures are decoded together."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, items: Sequence[Any]) -> Sequence[Result]:
        """See the manifest."""
        prompts: dict[int, PromptSet] = {}
        results: dict[int, Result] = {}
        for index, item in enumerate(items):
            try:
                name = _name_of(item)
                prompts[index] = check_prompts(_prompts_of(item), _size_of(item), name=name)
            except ValueError as error:
                results[index] = error
        embeddings = self._embeddings({index: items[index] for index in prompts})
        for index, prediction in self._segment(items, embeddings, prompts).items():
            results[index] = {"predictions": _finish(items[index], prediction)}
        return [results[index] for index in range(len(items))]

    def _embeddings(self, items: Mapping[int, Any]) -> dict[int, Embedding]:
        found = {index: item.embedding for index, item in items.items() if item.embedding}
        missing = [index for index in items if index not in found]
        made = embed(self._resources, [items[index] for index in missing])
        return found | dict(zip(missing, made, strict=True))

    def _segment(
        self,
        items: Sequence[Any],
        embeddings: Mapping[int, Embedding],
        prompts: Mapping[int, PromptSet],
    ) -> dict[int, MaskPrediction]:
        groups: dict[Settings, list[int]] = defaultdict(list)
        for index, embedding in embeddings.items():
            groups[_settings(items[index], embedding)].append(index)
        predictions: dict[int, MaskPrediction] = {}
        for (_, multimask, threshold, hole, sprinkle), indices in groups.items():
            executor = self._resources.executor_of(embeddings[indices[0]])
            made = executor.segment(
                [(embeddings[index], prompts[index]) for index in indices],
                multimask_output=multimask,
                mask_threshold=threshold,
                max_hole_area=hole,
                max_sprinkle_area=sprinkle,
            )
            predictions.update(zip(indices, made, strict=True))
        return predictions


def _settings(item: Any, embedding: Embedding) -> Settings:
    return (
        embedding.spec,
        item.multimask_output,
        item.mask_threshold,
        item.max_hole_area,
        item.max_sprinkle_area,
    )


def _size_of(item: Any) -> tuple[int, int]:
    size: tuple[int, int] = item.embedding.image_hw if item.embedding else item.image.hw
    return size


def _name_of(item: Any) -> str:
    name: str = item.embedding.image_id if item.embedding else item.image.id
    return name


def _prompts_of(item: Any) -> PromptSet:
    prompts: PromptSet | None = item.prompts
    return PromptSet.from_boxes(item.boxes.xyxy) if prompts is None else prompts


def _finish(item: Any, prediction: MaskPrediction) -> sv.Detections:
    detections = to_detections(
        prediction, prompting=item.boxes, prompts=item.prompts, image_id=_name_of(item)
    )
    keep = np.asarray(detections.data["iou_prediction"], dtype=float) >= item.min_confidence
    return cast(sv.Detections, detections[keep])
