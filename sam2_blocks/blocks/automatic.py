"""``sam2/automatic@v1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import supervision as sv

from sam2_blocks.blocks.embed import ModelItem, executor_for
from sam2_blocks.engine.resources import Resources
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.options import AutomaticSettings, CropSettings, settings_of
from sam2_blocks.strategies.automatic import generate_masks
from sam2_blocks.strategies.crops import generate_masks_in_crops
from sam2_blocks.strategies.segment import embed_pictures
from sam2_blocks.values import Embedding, Image

Result = Mapping[str, sv.Detections] | Exception


class AutomaticItem(ModelItem, Protocol):
    """One picture; see the manifest."""

    image: Image | None
    embedding: Embedding | None
    points_per_side: int
    pred_iou_thresh: float
    stability_score_thresh: float
    stability_score_offset: float
    box_nms_thresh: float
    min_mask_region_area: int
    multimask_output: bool
    mask_threshold: float
    crop_n_layers: int
    crop_nms_thresh: float
    crop_overlap_ratio: float
    crop_n_points_downscale_factor: int


class Automatic:
    """Segment everything in a picture; pictures share the encoder's batch, not the decoder's."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def run(self, items: Sequence[AutomaticItem]) -> Sequence[Result]:
        """See the manifest."""
        whole = [item for item in items if item.crop_n_layers == 0]
        embeddings = iter(
            embed_pictures(
                [
                    (executor_for(self._resources, item, item.embedding), _picture_of(item))
                    for item in whole
                ]
            )
        )
        return [
            self._in_crops(item) if item.crop_n_layers else self._in_whole(item, next(embeddings))
            for item in items
        ]

    def _in_whole(self, item: AutomaticItem, embedding: Embedding) -> Result:
        executor = self._resources.executor_of(embedding)
        found = generate_masks(executor, embedding, settings_of(AutomaticSettings, item))
        return {"predictions": to_detections(found, image_id=embedding.image_id)}

    def _in_crops(self, item: AutomaticItem) -> Result:
        if item.image is None:
            return ValueError(
                f"crop_n_layers = {item.crop_n_layers} cuts the picture itself, and got its "
                "embedding. Give 'image' instead of 'embedding', or no crop_n_layers."
            )
        settings, crops = settings_of(AutomaticSettings, item), settings_of(CropSettings, item)
        executor = executor_for(self._resources, item)
        try:
            found = generate_masks_in_crops(executor, item.image, settings, crops)
        except ValueError as error:  # settings that do not fit together
            return error
        return {"predictions": to_detections(found, image_id=item.image.id)}


def _picture_of(item: AutomaticItem) -> Image | Embedding:
    picture = item.embedding or item.image
    assert picture is not None  # the manifest requires one of them
    return picture
