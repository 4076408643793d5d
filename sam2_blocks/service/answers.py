"""Mask predictions → what goes back to the client."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

import numpy as np

from sam2_blocks.masks.outlines import rle_to_outlines
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.masks.rle import (
    rle_to_coco,
    rle_to_mask,
    rles_to_boxes_xyxy,
    spread_prediction,
)
from sam2_blocks.masks.stopping import look_up
from sam2_blocks.requests import PolygonForm
from sam2_blocks.responses import Sam2SegmentationPrediction
from sam2_blocks.service.errors import TooLargeError
from sam2_blocks.values import Embedding, Float32Array, Int64Array, MaskPrediction, Rle

ToRows = Callable[[MaskPrediction], list[Sam2SegmentationPrediction]]

BAND_PIXELS = 2**20
"""Of logits that are enlarged at once."""


def keep_confident(prediction: MaskPrediction, min_confidence: float | None) -> MaskPrediction:
    """Leave out the masks that the model is less sure of.

    Args:
        prediction: the masks.
        min_confidence: the least predicted IoU of a mask that stays; None keeps all.
    """
    if min_confidence is None:
        return prediction
    return prediction.select(_sure(prediction, min_confidence))


def _sure(prediction: MaskPrediction, min_confidence: float | None) -> Int64Array:
    least = -np.inf if min_confidence is None else min_confidence
    return np.flatnonzero(prediction.iou_prediction >= least)


def to_polygon_rows(
    prediction: MaskPrediction, tolerance_px: float = 0.0, form: PolygonForm = "centers"
) -> list[Sam2SegmentationPrediction]:
    """Answer in format ``json``: each part of a mask is one polygon.

    Args:
        prediction: the masks.
        tolerance_px: how far a polygon may be from the exact one.
        form: ``centers`` runs through the centres of border pixels and has no holes, as on the
            public server. ``corners`` runs along the edges of pixels; holes are joined to their
            outline by a path of zero width, so filling the polygons gives the mask back exactly.
    """
    to_rings = _rle_to_rings if form == "corners" else _rle_to_outlines
    return [
        Sam2SegmentationPrediction(
            masks=to_rings(rle, tolerance_px), confidence=float(iou), format="polygon"
        )
        for rle, iou in zip(prediction.rles, prediction.iou_prediction, strict=True)
    ]


def _rle_to_outlines(rle: Rle, tolerance_px: float) -> list[list[list[int]]]:
    look_up()
    return [ring.tolist() for ring in rle_to_outlines(rle, tolerance_px=tolerance_px)]


def _rle_to_rings(rle: Rle, tolerance_px: float) -> list[list[list[int]]]:
    look_up()
    polygons = rle_to_polygons(rle, hole_policy="bridge", tolerance_px=tolerance_px)
    # Whole numbers, as on the public server: slits are closed then, and as exact.
    return [np.rint(ring).astype(np.int64).tolist() for ring in polygons.outer]


def to_rle_rows(prediction: MaskPrediction) -> list[Sam2SegmentationPrediction]:
    """Answer in format ``rle``: COCO run lengths with string counts."""
    return [
        Sam2SegmentationPrediction(
            masks=dict(rle_to_coco(rle)), confidence=float(iou), format="rle"
        )
        for rle, iou in zip(prediction.rles, prediction.iou_prediction, strict=True)
    ]


def with_candidates(
    rows: Sequence[Sam2SegmentationPrediction],
    prediction: MaskPrediction,
    to_rows: ToRows,
    min_confidence: float | None = None,
) -> list[Sam2SegmentationPrediction]:
    """Add to each row what the model proposed for its prompt, the surest first.

    Args:
        rows: what is answered, of the masks that are sure enough.
        prediction: all masks, with their candidates; without, each is its own only candidate.
        to_rows: how masks are written.
        min_confidence: which masks were sure enough, see `keep_confident`.
    """
    kept = _sure(prediction, min_confidence)
    return [
        row.model_copy(update={"candidates": to_rows(_proposals(prediction, int(index)))})
        for row, index in zip(rows, kept, strict=True)
    ]


def indices_asked(prediction: MaskPrediction, skipped: Mapping[int, str]) -> Int64Array:
    """Number the prompts that were answered, where some were skipped.

    Args:
        prediction: N masks, of the prompts that were not skipped.
        skipped: why the others were, by their number in the request.

    Returns:
        int64, (N,): the number in the request of the prompt of each mask.
    """
    count = len(prediction.rles) + len(skipped)
    return np.array([index for index in range(count) if index not in skipped], np.int64)


def with_skipped(
    rows: Sequence[Sam2SegmentationPrediction],
    prediction: MaskPrediction,
    skipped: Mapping[int, str],
    to_rows: ToRows,
    min_confidence: float | None = None,
) -> list[Sam2SegmentationPrediction]:
    """Put a row without pixels, and with the reason, where a prompt was skipped.

    Args:
        rows: what is answered, of the masks that are sure enough.
        prediction: all masks, of the prompts that were not skipped.
        skipped: why the others were, by index.
        to_rows: how masks are written.
        min_confidence: which masks were sure enough; an empty one is 0.
    """
    if not skipped or (min_confidence or 0) > 0:
        return list(rows)
    asked = indices_asked(prediction, skipped)
    placed = {
        int(asked[place]): row
        for place, row in zip(_sure(prediction, min_confidence).tolist(), rows, strict=True)
    }
    none = np.array([], np.int64)
    empty = to_rows(spread_prediction(prediction.select(none), none, len(skipped)))
    for (index, reason), row in zip(skipped.items(), empty, strict=True):
        placed[index] = row.model_copy(update={"error": reason})
    return [placed[index] for index in sorted(placed)]


def _proposals(prediction: MaskPrediction, index: int) -> MaskPrediction:
    """What was proposed for one prompt; the chosen mask is the first of the surest."""
    found = prediction.candidates
    if found is None:
        return prediction.select(np.array([index]))
    order = np.argsort(-found.iou_prediction[index], kind="stable")
    rles = tuple(found.rles[index][place] for place in order)
    return MaskPrediction(
        image_hw=prediction.image_hw,
        rles=rles,
        iou_prediction=found.iou_prediction[index][order],
        low_res_logits=found.low_res_logits[index][order],
        mask_box_xyxy=rles_to_boxes_xyxy(rles),
    )


def to_npz(prediction: MaskPrediction, *, max_bytes: int) -> bytes:
    """Answer in format ``binary``.

    Args:
        prediction: N masks.
        max_bytes: what the logits at the size of the image may take, uncompressed.

    Returns:
        npz with ``masks`` float32 (N, H, W), logits at the size of the image, above 0 exactly where
        the mask is; ``low_res_masks`` float32 (N, h, w); and ``confidence`` float32 (N,).

    Raises:
        TooLargeError: if the logits would take more bytes than that.
    """
    npz_bytes(prediction, max_bytes=max_bytes)
    stream = io.BytesIO()
    # What np.savez writes; one band of one mask at a time, since masks are large.
    with zipfile.ZipFile(stream, "w") as archive:
        with archive.open("masks.npy", "w", force_zip64=True) as file:
            _write_masks(file, prediction)
        for name, array in (
            ("low_res_masks", prediction.low_res_logits),
            ("confidence", prediction.iou_prediction),
        ):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return stream.getvalue()


def npz_bytes(prediction: MaskPrediction, *, max_bytes: int) -> int:
    """Tell how large an answer in format ``binary`` will be, but for headers and small arrays.

    Args:
        prediction: N masks.
        max_bytes: as in `to_npz`.

    Raises:
        TooLargeError: if its logits at the size of the image have more bytes than that.
    """
    height, width = prediction.image_hw
    nbytes = 4 * len(prediction) * height * width
    if nbytes > max_bytes:
        raise TooLargeError(
            f"the logits would take {nbytes} bytes, the limit is {max_bytes}. Use format 'rle'."
        )
    return nbytes


def _write_masks(file: IO[bytes], prediction: MaskPrediction) -> None:
    height, width = prediction.image_hw
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(prediction), height, width)}
    np.lib.format.write_array_header_1_0(file, header)
    for index, rle in enumerate(prediction.rles):
        for band in _full_size_logits(prediction.low_res_logits[index], rle):
            look_up()
            file.write(band.astype("<f4", copy=False).data)


def embedding_to_npz(embedding: Embedding) -> bytes:
    """Write an embedding.

    Returns:
        npz, all float32: ``image_embed`` (1, C, h/4, w/4), ``high_res_feats_0`` (1, C/8, h, w) and
        ``high_res_feats_1`` (1, C/4, h/2, w/2), with ``image_hw`` int64 (2,).
    """
    arrays = {
        name.replace(".", "_"): np.asarray(tensor.float().cpu())
        for name, tensor in embedding.tensors.items()
    }
    return _npz(**arrays, image_hw=np.array(embedding.image_hw))


def _full_size_logits(low_res: Float32Array, rle: Rle) -> Iterator[Float32Array]:
    """Enlarge logits bilinearly; the sign is that of the exact mask, also where they were clamped.

    Returns:
        Bands of rows (h, W), from the top downwards.

    Source: ``F.interpolate(align_corners=False)``, as a product with two matrices.
    """
    height, width = rle.size
    rows = _enlarging(low_res.shape[0], height)
    wide = low_res @ _enlarging(low_res.shape[1], width).T
    mask = rle_to_mask(rle)
    tiny = np.finfo(np.float32).tiny
    step = max(1, BAND_PIXELS // width)
    for top in range(0, height, step):
        logits = rows[top : top + step] @ wide
        inside = mask[top : top + step]
        signed = np.where(inside, np.maximum(logits, tiny), np.minimum(logits, 0))
        yield np.ascontiguousarray(signed, np.float32)


def _enlarging(source: int, target: int) -> Float32Array:
    """Weights (target, source) of bilinear interpolation along one axis."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    left = position.astype(np.int64)
    right = np.minimum(left + 1, source - 1)
    weights = np.zeros((target, source), np.float32)
    np.add.at(weights, (np.arange(target), left), 1 - (position - left))
    np.add.at(weights, (np.arange(target), right), position - left)
    return weights


def _npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()
