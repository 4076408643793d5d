"""Masks as run lengths: encode, decode, crop, measure and compare, in plain numpy.

This is the reference for anything faster. Except for `mask_to_rle` and `rle_to_mask` nothing here
makes a full-size array: work grows with the number of runs and of columns, not of pixels.

Runs go down the columns, as in the COCO mask format: pixel ``(x, y)`` has index ``x * H + y``.
A *span* is the part of a foreground run inside one column: rows ``y_start <= y < y_stop`` of
column ``x``. Outlines are made in `polygons`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_blocks.values import Hw, Int64Array, MaskPrediction, Rle

MAX_PIXELS = 2**32 - 1
"""Largest H * W of a COCO RLE: its tools count in 32 bits."""


class CocoRle(TypedDict):
    """Compressed COCO run lengths, ready for JSON."""

    size: list[int]
    counts: str


class Spans(NamedTuple):
    """The foreground of a mask column by column, sorted by column, then row.

    Attributes:
        x: int64, (K,), column.
        y_start: int64, (K,), first row of the span.
        y_stop: int64, (K,), first row after the span.
    """

    x: Int64Array
    y_start: Int64Array
    y_stop: Int64Array


# --- pixels -----------------------------------------------------------------------------------


def mask_to_rle(mask: NDArray[np.bool_]) -> Rle:
    """Encode one binary mask as uncompressed COCO run lengths.

    Args:
        mask: bool, (H, W), True inside the object.

    Returns:
        Rle with ``size`` = (H, W) and column-major ``counts``; the counts sum to H * W.

    Raises:
        ValueError: if ``mask`` is not bool, not 2-D, or has no pixels.

    Example:
        >>> mask_to_rle(np.array([[False, True], [False, True]])).counts.tolist()
        [2, 2]

    Source: COCO API mask format; same order as sam2 ``utils/amg.py``.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
        raise ValueError(
            f"a mask must be a bool array (H, W) with at least one pixel, "
            f"got {mask.dtype} {mask.shape}"
        )
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    leading = [0, 0] if pixels[0] else [0]  # the first run is background, even if it is empty
    counts = np.diff(np.concatenate((leading, changes, [pixels.size])))
    return Rle((mask.shape[0], mask.shape[1]), counts.astype(np.int64))


def rle_to_mask(rle: Rle) -> NDArray[np.bool_]:
    """Decode run lengths to a mask.

    Args:
        rle: the run lengths.

    Returns:
        bool, (H, W), True inside the object.

    Raises:
        ValueError: if the counts do not sum to H * W. It is checked here alone, since run lengths
            that are too long would make an array of any size.
    """
    height, width = rle.size
    _check_sum(np.asarray(rle.counts), height * width)
    is_foreground = np.arange(len(rle.counts)) % 2 == 1
    mask: NDArray[np.bool_] = np.repeat(is_foreground, rle.counts).reshape(width, height).T
    return mask


# --- COCO -------------------------------------------------------------------------------------


def rle_to_coco(rle: Rle) -> CocoRle:
    """Compress run lengths to the COCO form, whose counts are an ASCII string.

    Returns:
        ``size`` [H, W] and ``counts``, ready for JSON and for pycocotools.

    Example:
        >>> rle_to_coco(Rle((2, 2), np.array([2, 2])))
        {'size': [2, 2], 'counts': '22'}
    """
    from pycocotools import mask as coco_mask  # here: importing us needs no codec

    height, width = rle.size
    uncompressed = {"size": [height, width], "counts": rle.counts}
    compressed = coco_mask.frPyObjects(uncompressed, height, width)
    return {"size": [height, width], "counts": compressed["counts"].decode("ascii")}


def coco_to_rle(coco: Mapping[str, Any]) -> Rle:
    """Read a COCO RLE, compressed or not, and check it.

    Args:
        coco: ``size`` [H, W] and ``counts``: a str, bytes, or a list of run lengths.

    Returns:
        The same mask; empty runs inside the list are merged away.

    Raises:
        ValueError: if a key is missing, ``size`` is not two positive integers or makes more than
            `MAX_PIXELS`, ``counts`` cannot be decoded, a run is negative or longer than H * W, or
            the runs do not sum to H * W.

    Example:
        >>> coco_to_rle({"size": [2, 2], "counts": "22"}).counts.tolist()
        [2, 2]
    """
    if not isinstance(coco, Mapping):
        raise ValueError(f"a COCO RLE is a mapping of 'size' and 'counts', got {coco!r:.100}")
    missing = {"size", "counts"} - coco.keys()
    if missing:
        raise ValueError(f"a COCO RLE needs 'size' and 'counts'; missing: {sorted(missing)}")
    size = _checked_size(coco["size"])
    pixels = size[0] * size[1]
    counts = coco["counts"]
    is_text = isinstance(counts, str | bytes | bytearray)
    runs = _decompress(counts) if is_text else _checked_runs(counts)
    _check_sum(runs, pixels)
    return Rle(size, merge_empty_runs(runs.astype(np.int64)))


def _check_sum(runs: NDArray[np.integer], pixels: int) -> None:
    """Check each run before their sum: runs no longer than the image sum to less than 2^63."""
    smallest, longest = int(runs.min(initial=0)), int(runs.max(initial=0))
    if smallest < 0 or longest > pixels:
        raise ValueError(
            f"a COCO count must be from 0 to H * W = {pixels}, got one of "
            f"{smallest if smallest < 0 else longest}"
        )
    total = runs.sum(dtype=np.int64)
    if total != pixels:
        raise ValueError(f"COCO counts must sum to H * W = {pixels}, got a sum of {total}")


def _checked_size(size: object) -> Hw:
    height, width = 0, 0
    with suppress(TypeError, ValueError, OverflowError):
        given = tuple(np.asarray(size))
        height, width = map(int, given)
        if given != (height, width) or any(isinstance(side, bool) for side in size):  # type: ignore[attr-defined]
            height = 0
    if height <= 0 or width <= 0:
        raise ValueError(
            f"COCO 'size' must be [height, width], two positive integers, got {size!r}"
        )
    if height * width > MAX_PIXELS:
        raise ValueError(f"COCO 'size' must make at most {MAX_PIXELS} pixels, got {size!r}")
    return height, width


def _checked_runs(counts: object) -> NDArray[np.integer]:
    runs: NDArray[Any] = np.empty(0)
    with suppress(ValueError):  # lists of lists
        runs = np.asarray(counts)
    if runs.ndim != 1 or not np.issubdtype(runs.dtype, np.integer):
        raise ValueError(
            f"COCO 'counts' must be a string, bytes or a list of integers, "
            f"got {type(counts).__name__} of {runs.dtype} {runs.shape}"
        )
    return runs


def _decompress(text: str | bytes | bytearray) -> Int64Array:
    """Decode the COCO string: signed base-32 digits, then differences two runs back.

    Sums may wrap, but no wrapped run looks right: a difference has 40 bits, so on its way around
    64 bits a sum passes through runs that are negative or too long, and every run is looked at.

    Source: ``rleFrString`` in the COCO API, ``common/maskApi.c``. Written here because that
    function trusts its input and reads past its end when the string is cut short.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    digits = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    is_last = digits & 0x20 == 0
    if len(digits) == 0 or digits.min() < 0 or digits.max() > 63 or not is_last[-1]:
        raise ValueError("COCO 'counts' is not a valid compressed string; is it cut short?")
    first = np.flatnonzero(np.concatenate(([True], is_last[:-1])))
    length = np.diff(first, append=len(digits))
    if length.max() > 8:
        raise ValueError("COCO 'counts' is not a valid compressed string; a run is too long")
    place = np.arange(len(digits)) - np.repeat(first, length)
    runs = np.add.reduceat((digits & 0x1F) << 5 * place, first)
    runs -= np.where(digits[is_last] & 0x10, 1 << 5 * length, 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def merge_empty_runs(runs: Int64Array) -> Int64Array:
    """Give each mask its one form: no run but the first is empty."""
    if (runs[1:] > 0).all():
        return runs
    kept = np.flatnonzero(runs)
    is_foreground = kept % 2 == 1
    starts = np.flatnonzero(np.concatenate(([True], is_foreground[1:] != is_foreground[:-1])))
    merged = np.add.reduceat(runs[kept], starts)
    return np.concatenate(([0], merged)) if is_foreground[0] else merged


# --- measures ---------------------------------------------------------------------------------


def rle_area(rle: Rle) -> int:
    """Count the foreground pixels."""
    return int(rle.counts[1::2].sum())


def rle_to_box_xyxy(rle: Rle) -> Int64Array:
    """Find the tight box of a mask.

    Returns:
        int64, (4,), inclusive pixel indices; ``[0, 0, 0, 0]`` if the mask is empty.
    """
    height = rle.size[0]
    ends = np.cumsum(rle.counts)
    start, last = ends[:-1:2], ends[1::2] - 1
    if len(last) == 0:
        return np.zeros(4, np.int64)
    (x_start, y_start), (x_last, y_last) = np.divmod(start, height), np.divmod(last, height)
    if (x_start == x_last).all():
        y_min, y_max = y_start.min(), y_last.max()
    else:  # a run that goes on into the next column touches the bottom and the top of the image
        y_min, y_max = 0, height - 1
    return np.array([x_start[0], y_min, x_last[-1], y_max], np.int64)


def rle_iou(first: Rle, second: Rle) -> float:
    """Compute the intersection over union of two masks, without decoding them.

    Args:
        first: one mask.
        second: the other, of the same size.

    Returns:
        0 to 1; two empty masks are equal, so 1.

    Raises:
        ValueError: if the sizes differ.
    """
    if first.size != second.size:
        raise ValueError(f"masks to compare must have one size, got {first.size} and {second.size}")
    ends_first, ends_second = np.cumsum(first.counts), np.cumsum(second.counts)
    # Two sorted halves are merged; edges of both masks come twice, with nothing in between.
    edges = np.sort(np.concatenate((ends_first, ends_second)), kind="stable")
    lengths = np.diff(edges, prepend=0)
    in_first = np.searchsorted(ends_first, edges) % 2 == 1
    in_second = np.searchsorted(ends_second, edges) % 2 == 1
    union = lengths[in_first | in_second].sum()
    return float(lengths[in_first & in_second].sum() / union) if union else 1.0


def rle_contains(rle: Rle, point_xy: ArrayLike) -> bool:
    """Say whether a point lies in a mask.

    Args:
        rle: the mask.
        point_xy: two numbers, in pixels; pixel (0, 0) is the square from 0 to below 1.

    Returns:
        False, too, for a point outside the picture or one that is not finite.
    """
    height, width = rle.size
    point = np.asarray(point_xy, float)
    if not np.isfinite(point).all():
        return False
    x, y = map(math.floor, point)
    if not (0 <= x < width and 0 <= y < height):
        return False
    run = int(np.searchsorted(np.cumsum(rle.counts), x * height + y, side="right"))
    return run % 2 == 1


# --- spans ------------------------------------------------------------------------------------


def rle_to_spans(rle: Rle) -> Spans:
    """Cut the foreground runs at the borders of columns.

    Returns:
        Spans sorted by column, then row; none of an empty mask.
    """
    height = rle.size[0]
    ends = np.cumsum(rle.counts)
    start, stop = ends[:-1:2], ends[1::2]
    x_first, x_last = start // height, (stop - 1) // height
    columns = x_last - x_first + 1
    if (columns == 1).all():
        return Spans(x_first, start - x_first * height, stop - x_first * height)
    before = np.cumsum(columns) - columns
    x = np.arange(columns.sum()) + np.repeat(x_first - before, columns)
    y_start = np.maximum(np.repeat(start, columns) - x * height, 0)
    y_stop = np.minimum(np.repeat(stop, columns) - x * height, height)
    return Spans(x, y_start, y_stop)


def spans_to_rle(spans: Spans, size: Hw) -> Rle:
    """Join spans to run lengths; spans that touch become one run.

    Args:
        spans: sorted, inside the image, none empty, no two overlapping.
        size: (H, W) of the image.
    """
    height, width = size
    start = spans.x * height + spans.y_start
    stop = spans.x * height + spans.y_stop
    edges = np.stack((start, stop), axis=1).ravel()
    is_seam = np.zeros(len(edges), bool)
    is_seam[1:-1] = np.repeat(start[1:] == stop[:-1], 2)
    edges = np.concatenate(([0], edges[~is_seam], [height * width]))
    counts = np.diff(edges)
    return Rle(size, counts if counts[-1] else counts[:-1])


def rle_crop(rle: Rle, box_xyxy: ArrayLike) -> Rle:
    """Cut a box out of a mask.

    Args:
        rle: the mask.
        box_xyxy: inclusive pixel indices inside the image.

    Returns:
        Rle whose size is that of the box.

    Raises:
        ValueError: if the box is inverted or reaches outside the image.
    """
    height, width = rle.size
    if not np.isfinite(box_xyxy).all():
        raise ValueError(f"a box wants finite numbers, got {box_xyxy!r}")
    x_min, y_min, x_max, y_max = (int(edge) for edge in np.asarray(box_xyxy))
    if not (0 <= x_min <= x_max < width and 0 <= y_min <= y_max < height):
        raise ValueError(
            f"box {[x_min, y_min, x_max, y_max]} is inverted or not inside the "
            f"{width}x{height} image"
        )
    x, y_start, y_stop = rle_to_spans(rle)
    y_start, y_stop = np.maximum(y_start, y_min), np.minimum(y_stop, y_max + 1)
    kept = (x >= x_min) & (x <= x_max) & (y_start < y_stop)
    spans = Spans(x[kept] - x_min, y_start[kept] - y_min, y_stop[kept] - y_min)
    return spans_to_rle(spans, (y_max - y_min + 1, x_max - x_min + 1))


def rle_paste(rle: Rle, corner_xy: tuple[int, int], image_hw: Hw) -> Rle:
    """Put the mask of a crop where the crop lies in its image; the reverse of `rle_crop`.

    Args:
        rle: the mask.
        corner_xy: the crop's first column and row.
        image_hw: size of the image.

    Returns:
        Rle of size ``image_hw``.

    Raises:
        ValueError: if the crop reaches outside the image.
    """
    (height, width), (left, top) = rle.size, corner_xy
    if not (0 <= left <= image_hw[1] - width and 0 <= top <= image_hw[0] - height):
        raise ValueError(
            f"a {width}x{height} crop at {list(corner_xy)} is not inside the "
            f"{image_hw[1]}x{image_hw[0]} image"
        )
    x, y_start, y_stop = rle_to_spans(rle)
    return spans_to_rle(Spans(x + left, y_start + top, y_stop + top), image_hw)


def rles_to_boxes_xyxy(rles: Iterable[Rle]) -> Int64Array:
    """Find the tight box of each mask: int64, (N, 4), inclusive pixel indices."""
    return np.array([rle_to_box_xyxy(rle) for rle in rles], np.int64).reshape(-1, 4)


def paste_prediction(
    prediction: MaskPrediction, corner_xy: tuple[int, int], image_hw: Hw
) -> MaskPrediction:
    """Put the masks of a crop where the crop lies in its image; see `rle_paste`.

    Args:
        prediction: N masks of the crop.
        corner_xy: the crop's first column and row.
        image_hw: size of the image.

    Returns:
        A prediction without logits, whose grid was the crop's: their array is (N, 0, 0).
    """
    rles = tuple(rle_paste(rle, corner_xy, image_hw) for rle in prediction.rles)
    return MaskPrediction(
        image_hw=image_hw,
        rles=rles,
        iou_prediction=prediction.iou_prediction,
        low_res_logits=np.zeros((len(prediction), 0, 0), np.float32),
        mask_box_xyxy=rles_to_boxes_xyxy(rles),
    )


def spread_prediction(prediction: MaskPrediction, rows: Int64Array, count: int) -> MaskPrediction:
    """Put masks at some rows of a prediction whose other masks are empty.

    Args:
        prediction: M masks.
        rows: int, (M,), where they go, ascending.
        count: rows of the result.

    Returns:
        The prediction itself if it fills all rows; else one without candidates, whose new rows have
        no pixels, logits far below any threshold and an estimate of 0.
    """
    if len(rows) == count:
        return prediction
    height, width = prediction.image_hw
    rles = [Rle((height, width), np.array([height * width]))] * count
    for row, rle in zip(rows, prediction.rles, strict=True):
        rles[row] = rle
    iou = np.zeros(count, np.float32)
    logits = np.full((count, *prediction.low_res_logits.shape[1:]), -32, np.float32)
    iou[rows], logits[rows] = prediction.iou_prediction, prediction.low_res_logits
    return MaskPrediction(
        image_hw=prediction.image_hw,
        rles=tuple(rles),
        iou_prediction=iou,
        low_res_logits=logits,
        mask_box_xyxy=rles_to_boxes_xyxy(rles),
    )


def masks_to_prediction(
    masks: NDArray[np.bool_], iou_prediction: ArrayLike | None = None
) -> MaskPrediction:
    """Wrap masks of any origin as a prediction, for blocks that segment without SAM 2.

    Args:
        masks: bool, (N, H, W).
        iou_prediction: float, (N,), how good each mask is thought to be; 1 if not given.

    Returns:
        A prediction without low-resolution logits: their array is (N, 0, 0).

    Raises:
        ValueError: if ``masks`` is not bool (N, H, W), or ``iou_prediction`` not (N,).

    Example:
        >>> import numpy as np
        >>> masks_to_prediction(np.ones((1, 2, 3), bool), [0.5])
        MaskPrediction(1 masks, image_hw=(2, 3), low_res_logits=(1, 0, 0))
    """
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise ValueError(f"wants bool masks (N, H, W), got {masks.dtype} {masks.shape}")
    count, height, width = masks.shape
    quality = np.asarray(np.ones(count) if iou_prediction is None else iou_prediction, np.float32)
    if quality.shape != (count,):
        raise ValueError(f"wants iou_prediction of shape ({count},), got {quality.shape}")
    rles = tuple(mask_to_rle(mask) for mask in masks)
    return MaskPrediction(
        image_hw=(height, width),
        rles=rles,
        iou_prediction=quality,
        low_res_logits=np.zeros((count, 0, 0), np.float32),
        mask_box_xyxy=rles_to_boxes_xyxy(rles),
    )
