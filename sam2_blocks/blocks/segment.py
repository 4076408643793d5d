"""``sam2/segment@v1``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import supervision as sv

from sam2_blocks.blocks.embed import embed
from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import has_pixels, to_detections
from sam2_blocks.masks.rle import spread_prediction
from sam2_blocks.prompts import check_prompts
from sam2_blocks.strategies.tiles import segment_in_tiles
from sam2_blocks.values import Embedding, MaskPrediction, PromptSet

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
        tiled = [index for index in prompts if items[index].tile_px]
        for index in tiled:
            results[index] = self._in_tiles(items[index], prompts.pop(index))
        embeddings = self._embeddings({index: items[index] for index in prompts})
        for index, prediction in self._segment(items, embeddings, prompts).items():
            results[index] = {"predictions": _finish(items[index], prediction)}
        return [results[index] for index in range(len(items))]

    def _in_tiles(self, item: Any, prompts: PromptSet) -> Result:
        if item.image is None:
            return ValueError(
                f"tile_px = {item.tile_px} cuts the picture itself, and got its embedding. Give "
                "'image' instead of 'embedding', or no tile_px."
            )
        executor = self._resources.executor(item.model, device=item.device, dtype=item.dtype)
        try:
            prediction = segment_in_tiles(
                executor, item.image, prompts, tile_px=item.tile_px, **_options(item)
            )
        except ValueError as error:  # a prompt, or the size of a tile
            return error
        return {"predictions": _finish(item, prediction)}

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
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for index, embedding in embeddings.items():
            key = (embedding.spec, *_options(items[index]).values())
            groups[key].append(index)
        predictions: dict[int, MaskPrediction] = {}
        for indices in groups.values():
            executor = self._resources.executor_of(embeddings[indices[0]])
            pairs = [(embeddings[index], prompts[index]) for index in indices]
            made = executor.segment(pairs, **_options(items[indices[0]]))
            predictions.update(zip(indices, made, strict=True))
        return predictions


def _options(item: Any) -> dict[str, Any]:
    """What the item asks of `Executor.segment`."""
    names = ("multimask_output", "mask_threshold", "max_hole_area", "max_sprinkle_area")
    return {name: getattr(item, name) for name in names}


def _size_of(item: Any) -> tuple[int, int]:
    size: tuple[int, int] = item.embedding.image_hw if item.embedding else item.image.hw
    return size


def _name_of(item: Any) -> str:
    name: str = item.embedding.image_id if item.embedding else item.image.id
    return name


def _prompts_of(item: Any) -> PromptSet:
    prompts: PromptSet | None = item.prompts
    if prompts is not None:
        return prompts
    return PromptSet.from_boxes(item.boxes.xyxy[has_pixels(item.boxes)])


def _finish(item: Any, prediction: MaskPrediction) -> sv.Detections:
    if item.boxes is not None:  # an empty mask has no box to be a prompt
        rows = np.flatnonzero(has_pixels(item.boxes))
        prediction = spread_prediction(prediction, rows, len(item.boxes))
    detections = to_detections(
        prediction, prompting=item.boxes, prompts=item.prompts, image_id=_name_of(item)
    )
    keep = np.asarray(detections.data["iou_prediction"], dtype=float) >= item.min_confidence
    return cast(sv.Detections, detections[keep])
