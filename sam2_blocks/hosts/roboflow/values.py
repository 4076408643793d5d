"""Values on the engine's wires, in and out.

Its pictures are BGR and know where they come from. Detections that leave a block have the columns,
the lineage and the dense masks of the engine's own predictions, so that its blocks take them for
these; a step may ask for more columns and for smaller masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.hosts.roboflow.engine import Engine, load_engine
from sam2_blocks.kinds import BUILTIN_KINDS, dump_value
from sam2_blocks.masks.rle import rle_to_coco
from sam2_blocks.values import Embedding, Hw, Image, VideoFrame

if TYPE_CHECKING:
    import supervision as sv


EMBEDDING = next(kind for kind in BUILTIN_KINDS if kind.name == "image_embedding")


class Lineage(NamedTuple):
    """Where a picture comes from; named as on the engine's pictures, of which it is a part."""

    parent_metadata: Any
    workflow_root_ancestor_metadata: Any


class Form(NamedTuple):
    """How predictions leave a step; its host-only fields, which `FORM_FIELDS` describes.

    Attributes:
        extra_columns: keep what the engine's own predictions do not have.
        compact_masks: leave masks run lengths that answer like an array, instead of the array.
    """

    extra_columns: bool = False
    compact_masks: bool = False


PLAIN = Form()

FORM_FIELDS = {
    "extra_columns": "Keep columns that predictions of the engine's own blocks do not have: of the "
    "prompting boxes, and iou_prediction, prompt_index and others of this block.",
    "compact_masks": "Keep masks as run lengths, far smaller than arrays. They answer like an "
    "array, but a block that checks for numpy.ndarray does not take them.",
}
ENGINE_COLUMNS = frozenset(
    {
        "class_name",
        "detection_id",
        "image_dimensions",
        "parent_coordinates",
        "parent_dimensions",
        "parent_id",
        "prediction_type",
        "root_parent_coordinates",
        "root_parent_dimensions",
        "root_parent_id",
    }
)
"""Columns of the engine's own predictions; who merges wants the same ones everywhere."""


@dataclass(frozen=True)
class TracedEmbedding:
    """An embedding on a wire of the engine, with the lineage of its picture."""

    embedding: Embedding
    lineage: Lineage


def row_to_ours(row: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """Convert the values of one row from the engine's types to those of our blocks.

    Args:
        row: values by input or parameter.
        engine: whose types they are.

    Returns:
        The same names; pictures are `Image` in RGB, embeddings are without their lineage, and
        everything else is as it was.
    """
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
    video = _frame_of(picture)
    return Image(cv2.cvtColor(pixels, code), picture.parent_metadata.parent_id, video=video)


def _frame_of(picture: Any) -> VideoFrame | None:
    """Where in a video a picture is from; the engine makes something up where nobody said."""
    given = getattr(picture, "_video_metadata", None)
    if given is None:
        return None
    return VideoFrame(given.video_identifier, given.frame_number, fps=given.fps)


def value_to_theirs(value: Any, row: Mapping[str, Any], engine: Engine, form: Form = PLAIN) -> Any:
    """Convert one output of our blocks to the engine's types.

    Args:
        value: of the output.
        row: what the block was given, in the engine's types: where pictures and detections are
            from is read from there.
        engine: whose types are made.
        form: how predictions are handed on.
    """
    import supervision as sv

    picture = next((v for v in row.values() if isinstance(v, engine.base.WorkflowImageData)), None)
    traced = next((v for v in row.values() if isinstance(v, TracedEmbedding)), None)
    if type(value) is list:
        return [value_to_theirs(one, row, engine, form) for one in value]
    if isinstance(value, Image):
        return _image_to_picture(value, picture, engine.base)
    if isinstance(value, Embedding) and picture is not None:
        return TracedEmbedding(value, _lineage_of(picture))
    if isinstance(value, sv.Detections) and picture is not None:
        image_hw = picture.numpy_image.shape[:2]
        return _with_lineage(value, _lineage_of(picture), image_hw, engine, form)
    if isinstance(value, sv.Detections) and traced is not None:
        return _with_lineage(value, traced.lineage, traced.embedding.image_hw, engine, form)
    if isinstance(value, sv.Detections) and not form.compact_masks:
        return replace(value, mask=_dense(value.mask))
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
    detections: sv.Detections, lineage: Lineage, image_hw: Hw, engine: Engine, form: Form
) -> sv.Detections:
    """Give detections the form of the engine's own: their columns, their masks, their lineage."""
    from sam2_blocks.masks.detections import derive_ids

    count = len(detections)
    kept = detections.data if form.extra_columns else _engines_own(detections.data)
    detections = replace(
        detections,
        xyxy=detections.xyxy.astype(np.float64),  # 32 bits of a longitude are metres
        mask=detections.mask if form.compact_masks else _dense(detections.mask),
        confidence=_or(detections.confidence, np.ones(count)).astype(np.float64),
        class_id=_or(detections.class_id, np.zeros(count, np.int64)),
        data={
            "class_name": np.array(["object"] * count, np.str_),
            "detection_id": derive_ids(detections, lineage.parent_metadata.parent_id),
            **kept,
            "image_dimensions": np.tile(np.array(image_hw), (count, 1)),
            "prediction_type": np.array([_prediction_type(detections)] * count, np.str_),
        },
        metadata=dict(detections.metadata) if form.extra_columns else {},
    )
    if not count:
        detections.metadata["image_dimensions"] = list(image_hw)
    return cast(
        "sv.Detections",
        engine.utils.attach_parents_coordinates_to_sv_detections(detections, lineage),
    )


def _engines_own(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: column for name, column in data.items() if name in ENGINE_COLUMNS}


def _dense(mask: Any) -> Any:
    return mask if mask is None or isinstance(mask, np.ndarray) else np.asarray(mask, bool)


def _or(column: NDArray[Any] | None, otherwise: NDArray[Any]) -> NDArray[Any]:
    return otherwise if column is None else column


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
    """Write detections as the engine does, with the run lengths and the outline of every mask.

    They are made of the masks as these are now; the engine's own would write those of the block
    that first made them, wherever its other blocks have moved or changed the masks since. Of
    predictions that have run lengths alone there are no outlines, as in the engine; a mask without
    a pixel has none either.
    """
    from sam2_blocks.masks.detections import settle_masks, to_rles

    settled = settle_masks(value)
    serializers = load_engine().serializers
    if settled.mask is None:
        return serializers.serialise_sv_detections(settled)
    written = serializers.serialise_sv_detections(replace(settled, mask=None))
    for index, (row, rle) in enumerate(zip(written["predictions"], to_rles(settled), strict=True)):
        row["rle_mask"] = dict(rle_to_coco(rle))
        outline = None if value.mask is None else _outline(settled, index, serializers)
        if outline is not None:
            row["points"] = [{"x": float(x), "y": float(y)} for x, y in outline]
    return written


def _outline(detections: sv.Detections, index: int, serializers: ModuleType) -> Any:
    """What the engine writes as the points of a row: a polygon of its blocks, or the mask's."""
    drawn = detections.data.get("polygon")
    if drawn is not None and drawn[index] is not None and len(drawn[index]) > 2:
        return drawn[index]
    assert detections.mask is not None
    return serializers.mask_to_polygon(mask=detections.mask[index])


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
