"""Detectors on pictures of any size: whole, and on tiles of them for what is small in them.

A detector scales a picture to a square of 640 pixels or so, in which an object of 30 pixels in a
picture of 8,000 has 2. On a tile of 1,000 pixels it has 19. Tiles lie on a grid and overlap, so
that what is smaller than the overlap lies wholly inside one; the whole picture is looked at, too,
for what is larger. What is found more than once stays once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.errors import did_you_mean
from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.masks.boxes import covered_shares, suppress_boxes
from sam2_blocks.masks.rle import rle_paste
from sam2_blocks.strategies.crops import Window
from sam2_blocks.values import Float32Array, Hw, Image, Int64Array

VIEWS_PER_BATCH = 16
CUT_PX = 2  # a box this close to the edge of its tile counts as cut off
MOST_TILES = 4096  # of one picture
COVERED = 0.5  # a cut-off box goes where a whole one of its class covers more than this of it

Find = Callable[[Sequence[Image]], list[FoundObjects]]
"""What finds objects in pictures, one answer each."""


@dataclass(frozen=True)
class TileSettings:
    """How to look at a picture in tiles.

    Attributes:
        tile_px: length of a tile's sides in pixels, 2 or more; 0 looks at the whole picture alone.
        overlap: how much neighbours overlap, as a share of their sides, 0 to below 1.
        nms_iou: of two boxes of one class that overlap more than this, the more certain stays.
    """

    tile_px: int = 0
    overlap: float = 0.2
    nms_iou: float = 0.5


def detect_in_tiles(
    find: Find, images: Sequence[Image], settings: TileSettings | None = None
) -> list[FoundObjects]:
    """Find objects in pictures, and in tiles of those that are larger than a tile.

    Args:
        find: the detector; gets views of all pictures together.
        images: the pictures.
        settings: the tiles; none if not given.

    Returns:
        Objects in pixels of the whole picture; without tiles just what the detector answered, with
        them the most certain first. Boxes that lie outside their picture are left out.

    Raises:
        ValueError: if the settings make no tiles.
    """
    settings = settings or TileSettings()
    places = [tile_places(image.hw, settings) for image in images]
    views = [
        (image, place) for image, of_image in zip(images, places, strict=True) for place in of_image
    ]
    found: list[FoundObjects] = []
    for start in range(0, len(views), VIEWS_PER_BATCH):
        batch = views[start : start + VIEWS_PER_BATCH]
        found += find([_view(image, place) for image, place in batch])
    answers, start = [], 0
    for image, of_image in zip(images, places, strict=True):
        parts = found[start : start + len(of_image)]
        start += len(of_image)
        joined = parts[0] if len(parts) == 1 else _join(parts, of_image, image.hw, settings)
        answers.append(_inside(joined))
    return answers


def tile_places(image_hw: Hw, settings: TileSettings) -> list[Window]:
    """Lay tiles over a picture.

    Args:
        image_hw: size of the picture in pixels.
        settings: size and overlap of the tiles.

    Returns:
        The whole picture first, then the tiles row by row; the whole alone if one tile holds it.

    Raises:
        ValueError: if ``tile_px`` is 1, tiles overlap by all their length, or there would be more
            than `MOST_TILES`.
    """
    if settings.tile_px == 1 or settings.tile_px < 0:
        raise ValueError(f"tile_px wants 2 or more, or 0 for no tiles, got {settings.tile_px}")
    if not 0 <= settings.overlap < 1:
        raise ValueError(f"overlap wants a share from 0 to below 1, got {settings.overlap}")
    height, width = image_hw
    whole = Window(0, 0, width, height, 0)
    size = settings.tile_px
    if not size or max(image_hw) <= size:
        return [whole]
    step = max(1, round(size * (1 - settings.overlap)))
    across, down = (_starts(length, size, step) for length in (width, height))
    if len(across) * len(down) > MOST_TILES:
        raise ValueError(
            f"tile_px = {size} makes {len(across) * len(down)} tiles of a picture of {width} x "
            f"{height}, the most are {MOST_TILES}. Use larger tiles, or less overlap."
        )
    return [whole] + [
        Window(x, y, min(x + size, width), min(y + size, height), 1) for y in down for x in across
    ]


def choose_objects(
    found: FoundObjects, *, classes: Sequence[str] | None = None, max_count: int | None = None
) -> FoundObjects:
    """Keep the objects of some classes, and of these the most certain, in their order.

    Args:
        found: the objects.
        classes: names; None keeps all classes.
        max_count: how many objects at most; None keeps all.
    """
    rows = np.arange(len(found))
    if classes is not None:
        rows = np.flatnonzero(np.isin(np.array(found.class_names, np.str_), list(classes)))
    if max_count is not None and len(rows) > max_count:
        best = np.argsort(-found.confidence[rows], kind="stable")[:max_count]
        rows = np.sort(rows[best])
    return found.select(rows)


def suppress_objects(found: FoundObjects, iou: float) -> FoundObjects:
    """Keep the more certain of two objects of one class whose boxes overlap; order stays.

    Args:
        found: the objects.
        iou: boxes that overlap more than this are of one object; 1 or more keeps all.
    """
    if iou >= 1:
        return found
    kept = suppress_by_class(found.boxes_xyxy, found.confidence, found.class_ids, iou_threshold=iou)
    return found.select(np.sort(kept))


def suppress_by_class(
    boxes_xyxy: Float32Array, scores: Float32Array, class_ids: Int64Array, *, iou_threshold: float
) -> Int64Array:
    """Keep the box with the highest score of those of one class that overlap.

    Args:
        boxes_xyxy: float32, (N, 4).
        scores: float32, (N,).
        class_ids: int64, (N,).
        iou_threshold: boxes that overlap more than this are of one object.

    Returns:
        Indices of the boxes kept, the highest score first, equal scores in their order.
    """
    kept = [
        rows[suppress_boxes(boxes_xyxy[rows], scores[rows], iou_threshold=iou_threshold)]
        for class_id in np.unique(class_ids)
        for rows in [np.flatnonzero(class_ids == class_id)]
    ]
    together = np.sort(np.concatenate([np.zeros(0, np.int64), *kept]))
    return together[np.argsort(-scores[together], kind="stable")]


def check_classes(classes: Sequence[str] | None, known: Sequence[str], model: str) -> None:
    """Refuse names of classes that a model does not know.

    Args:
        classes: the names that are asked for, if any.
        known: the classes of the model.
        model: its name, for the message.

    Raises:
        ValueError: naming the first of them and the nearest that there is.
    """
    for name in classes or ():
        if name not in known:
            raise ValueError(
                f"the model {model!r} knows no class {name!r}.{did_you_mean(name, known)}"
            )


def _starts(length: int, size: int, step: int) -> list[int]:
    last = max(length - size, 0)
    return [*range(0, last, step), last]


def _view(image: Image, place: Window) -> Image:
    return image if place.layer == 0 else place.cut(image)


def _join(
    parts: Sequence[FoundObjects], places: Sequence[Window], image_hw: Hw, settings: TileSettings
) -> FoundObjects:
    """Move what was found in views into the picture, and keep each object once."""
    moved = [_move(part, place, image_hw) for part, place in zip(parts, places, strict=True)]
    cut = np.concatenate(
        [_cut_off(part, place, image_hw) for part, place in zip(moved, places, strict=True)]
    )
    together = FoundObjects.concatenate(moved)
    whole = np.flatnonzero(~cut)
    kept = whole[
        suppress_by_class(
            together.boxes_xyxy[whole],
            together.confidence[whole],
            together.class_ids[whole],
            iou_threshold=settings.nms_iou,
        )
    ]
    pieces = _uncovered(together, np.flatnonzero(cut), kept, settings.nms_iou)
    rows = np.concatenate([kept, pieces]).astype(np.int64)
    return together.select(rows[np.argsort(-together.confidence[rows], kind="stable")])


def _uncovered(
    found: FoundObjects, pieces: Int64Array, whole: Int64Array, nms_iou: float
) -> Int64Array:
    """The cut-off boxes that no whole box of their class covers, each object once."""
    boxes, class_ids = found.boxes_xyxy, found.class_ids
    shares = covered_shares(boxes[pieces], boxes[whole])
    same = class_ids[pieces][:, None] == class_ids[whole][None]
    pieces = pieces[~((shares > COVERED) & same).any(axis=1)]
    return pieces[
        suppress_by_class(
            boxes[pieces], found.confidence[pieces], class_ids[pieces], iou_threshold=nms_iou
        )
    ]


def _move(found: FoundObjects, place: Window, image_hw: Hw) -> FoundObjects:
    corner = np.array([place.x_start, place.y_start] * 2, np.float32)
    rles = found.rles
    return replace(
        found,
        image_hw=image_hw,
        boxes_xyxy=found.boxes_xyxy + corner,
        rles=None if rles is None else tuple(rle_paste(rle, place[:2], image_hw) for rle in rles),
    )


def _cut_off(found: FoundObjects, place: Window, image_hw: Hw) -> NDArray[np.bool_]:
    """Say which boxes end where their tile does, and the picture goes on."""
    boxes = found.boxes_xyxy
    low, high = np.array(place[:2]), np.array(place[2:4])
    begins = (boxes[:, :2] <= low + CUT_PX) & (low > 0)
    ends = (boxes[:, 2:] >= high - CUT_PX) & (high < np.array(image_hw[::-1]))
    return np.asarray((begins | ends).any(axis=1))


def _inside(found: FoundObjects) -> FoundObjects:
    """Leave out boxes that do not touch their picture, and could prompt nothing in it."""
    height, width = found.image_hw
    x0, y0, x1, y1 = found.boxes_xyxy.T
    inside = (x0 < width) & (y0 < height) & (x1 > 0) & (y1 > 0)
    return found if inside.all() else found.select(np.flatnonzero(inside))
