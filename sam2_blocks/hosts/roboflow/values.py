"""Values on the engine's wires, in and out.

Its pictures are BGR and know where they come from. Detections that leave a block carry that lineage
and a few columns more, without which the engine's own blocks and serialisers refuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np

from sam2_blocks.hosts.roboflow.engine import Engine, load_engine
from sam2_blocks.kinds import BUILTIN_KINDS, dump_value
from sam2_blocks.masks.rle import rle_to_coco
from sam2_blocks.values import Embedding, Hw, Image

if TYPE_CHECKING:
    import supervision as sv


EMBEDDING = next(kind for kind in BUILTIN_KINDS if kind.name == "image_embedding")


class Lineage(NamedTuple):
    """Where a picture comes from; named as on the engine's pictures, of which it is a part."""

    parent_metadata: Any
    workflow_root_ancestor_metadata: Any


@dataclass(frozen=True)
class TracedEmbedding:
    """An embedding on a wire of the engine, with the lineage of its picture."""

    embedding: Embedding
    lineage: Lineage


def row_to_ours(row: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """Values as our blocks want them."""
    return {name: _value_to_ours(value, engine) for name, value in row.items()}


def _value_to_ours(value: Any, engine: Engine) -> Any:
    if isinstance(value, engine.base.WorkflowImageData):
        return _picture_to_image(value)
    if type(value) is list:
        return [_value_to_ours(one, engine) for one in value]
    return value.embedding if isinstance(value, TracedEmbedding) else value


def _picture_to_image(picture: Any) -> Image:
    import cv2  # the engine needs it too; ten times faster than numpy here

    pixels = picture.numpy_image
    code = cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB
    return Image(cv2.cvtColor(pixels, code), picture.parent_metadata.parent_id)


def value_to_theirs(value: Any, row: Mapping[str, Any], engine: Engine) -> Any:
    """One output as the engine's blocks want it."""
    import supervision as sv

    picture = next((v for v in row.values() if isinstance(v, engine.base.WorkflowImageData)), None)
    traced = next((v for v in row.values() if isinstance(v, TracedEmbedding)), None)
    if type(value) is list:
        return [value_to_theirs(one, row, engine) for one in value]
    if isinstance(value, Image):
        return _image_to_picture(value, picture, engine.base)
    if isinstance(value, Embedding) and picture is not None:
        return TracedEmbedding(value, _lineage_of(picture))
    if isinstance(value, sv.Detections) and picture is not None:
        return _with_lineage(value, _lineage_of(picture), picture.numpy_image.shape[:2], engine)
    if isinstance(value, sv.Detections) and traced is not None:
        return _with_lineage(value, traced.lineage, traced.embedding.image_hw, engine)
    return value


def _lineage_of(picture: Any) -> Lineage:
    return Lineage(picture.parent_metadata, picture.workflow_root_ancestor_metadata)


def _image_to_picture(image: Image, source: Any, base: ModuleType) -> Any:
    """Our picture in place of the one it was made from, if it has kept its size."""
    import cv2

    bgr = cv2.cvtColor(image.pixels, cv2.COLOR_RGB2BGR)
    if source is not None and source.numpy_image.shape[:2] == image.hw:
        return base.WorkflowImageData.copy_and_replace(source, numpy_image=bgr)
    parent = base.ImageParentMetadata(parent_id=image.id)
    return base.WorkflowImageData(parent_metadata=parent, numpy_image=bgr)


def _with_lineage(
    detections: sv.Detections, lineage: Lineage, image_hw: Hw, engine: Engine
) -> sv.Detections:
    """Add what the engine's blocks and serialisers look for in detections.

    ``parent_id`` stays the id of the detection that a row was made from, where there is one, as in
    the engine's own blocks that derive detections from detections.
    """
    own_parents = detections.data.get("parent_id")
    detections = engine.utils.attach_parents_coordinates_to_sv_detections(detections, lineage)
    count = len(detections)
    columns = {
        "parent_id": detections.data["parent_id"] if own_parents is None else own_parents,
        "image_dimensions": np.tile(np.array(image_hw), (count, 1)),
        "prediction_type": np.array([_prediction_type(detections)] * count, np.str_),
    }
    missing = {
        "class_name": np.array(["object"] * count, np.str_),
        "detection_id": np.array([str(uuid4()) for _ in range(count)], np.str_),
        "inference_id": np.array([str(uuid4())] * count, np.str_),
    }
    detections.data = {**missing, **detections.data, **columns}
    if detections.confidence is None:
        detections.confidence = np.ones(count, np.float32)
    if detections.class_id is None:
        detections.class_id = np.zeros(count, np.int64)
    if not count:
        detections.metadata["image_dimensions"] = list(image_hw)
    return detections


def _prediction_type(detections: sv.Detections) -> str:
    if detections.mask is not None:
        return "instance-segmentation"
    return "keypoint-detection" if "keypoints_xy" in detections.data else "object-detection"


def serialize_embedding(value: TracedEmbedding) -> dict[str, Any]:
    """Write an embedding and its lineage as JSON."""
    lineage = {name: asdict(origin) for name, origin in value.lineage._asdict().items()}
    return {**dump_value(value.embedding, [EMBEDDING]), "lineage": lineage}


def serialize_masks(value: sv.Detections) -> Any:
    """Write detections as the engine does, with the outline of every mask.

    Of those whose masks are run lengths alone, the engine's own would write the boxes.
    """
    from sam2_blocks.masks.detections import settle_masks

    return load_engine().serializers.serialise_sv_detections(settle_masks(value))


def serialize_rle_masks(value: sv.Detections) -> Any:
    """Write detections as the engine does, with the run lengths of every mask.

    They are made of the masks as these are now; the engine's own would write those of the block
    that first made them, wherever its other blocks have moved or changed the masks since.
    """
    from sam2_blocks.masks.detections import settle_masks, to_rles

    settled = settle_masks(value)
    serialise = load_engine().serializers.serialise_sv_detections
    if settled.mask is None:
        return serialise(settled)
    written = serialise(replace(settled, mask=None))
    for row, rle in zip(written["predictions"], to_rles(settled), strict=True):
        row["rle_mask"] = dict(rle_to_coco(rle))
    return written


def deserialize_embedding(parameter: str, value: Any) -> TracedEmbedding:
    """Read the value of a workflow's input of kind ``image_embedding``."""
    if isinstance(value, TracedEmbedding):
        return value
    from sam2_blocks.executor.embedding_json import json_to_embedding

    base = load_engine().base
    embedding = json_to_embedding(value)
    origins = {
        name: base.ImageParentMetadata(
            parent_id=origin["parent_id"],
            origin_coordinates=base.OriginCoordinatesSystem(**origin["origin_coordinates"]),
        )
        for name, origin in value["lineage"].items()
    }
    return TracedEmbedding(embedding, Lineage(**origins))
