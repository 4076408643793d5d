"""Masks for small objects in large pictures: each prompt is answered on a tile around it.

The encoder squeezes a picture into a square of 1,024 pixels, in which an object of 50 pixels in a
picture of 8,000 has 6. On a tile of 1,024 pixels it keeps its 50. Tiles lie on a grid and overlap
by half, so that prompts near each other share an embedding, and every prompt up to half as long as
a tile lies wholly inside one. Only tiles with prompts are encoded; a prompt that no tile holds is
answered on the whole picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from sam2_blocks.executors import Executor
from sam2_blocks.masks.rle import masks_to_prediction, paste_prediction
from sam2_blocks.options import SegmentOptions, check_whole
from sam2_blocks.prompts import CheckedPrompts, check_prompts, to_prompt_set
from sam2_blocks.strategies.crops import Window
from sam2_blocks.values import Hw, Image, MaskPrediction, Prompt, PromptSet

TILES_PER_BATCH = 8


def segment_in_tiles(
    executor: Executor,
    image: Image,
    prompts: PromptSet,
    *,
    tile_px: int = 1024,
    options: SegmentOptions | None = None,
) -> MaskPrediction:
    """Segment a picture, each prompt on the tile that has it nearest to its middle.

    Args:
        executor: what encodes and decodes.
        image: the picture.
        prompts: boxes and points in pixels of the picture.
        tile_px: length of a tile's sides in pixels, at least 2.
        options: of the executor; the defaults if not given.

    Returns:
        Masks of the whole picture, one a prompt, in order; without logits, whose grids are those
        of different tiles: their array is (N, 0, 0).

    Raises:
        ValueError: if a prompt means nothing in the picture, or has ``mask_input``, whose grid is
            the whole picture's; if ``tile_px`` is too small.

    Example:
        >>> executor = load_executor("nano", device="cpu")
        >>> image = read_image("examples/pictures/coins.jpg")
        >>> prompts = PromptSet.from_boxes([[36, 466, 150, 576]])
        >>> segment_in_tiles(executor, image, prompts, tile_px=384)
        MaskPrediction(1 masks, image_hw=(606, 768), low_res_logits=(1, ...))
    """
    check_whole("tile_px", tile_px, 2)
    prompts = check_prompts(to_prompt_set(prompts), image.hw, name=image.id)
    by_tile: dict[Window, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts.prompts):
        if prompt.mask_input is not None:
            raise ValueError(f"prompt {index}: mask_input is for whole pictures, not for tiles")
        by_tile[_tile_of(prompt, image.hw, tile_px)].append(index)
    order, predictions = [], []
    for tile, prediction in _segment_tiles(
        executor, image, prompts, by_tile, options or SegmentOptions()
    ):
        order += by_tile[tile]
        predictions.append(paste_prediction(prediction, tile[:2], image.hw))
    if not predictions:
        return masks_to_prediction(np.zeros((0, *image.hw), bool))
    return MaskPrediction.concatenate(predictions).select(np.argsort(order))


def _segment_tiles(
    executor: Executor,
    image: Image,
    prompts: PromptSet,
    by_tile: Mapping[Window, Sequence[int]],
    options: SegmentOptions,
) -> Iterator[tuple[Window, MaskPrediction]]:
    tiles = list(by_tile)
    for start in range(0, len(tiles), TILES_PER_BATCH):
        batch = tiles[start : start + TILES_PER_BATCH]
        embeddings = executor.embed([tile.cut(image) for tile in batch])
        moved = [
            CheckedPrompts(
                tuple(_move(prompts.prompts[index], tile) for index in by_tile[tile]),
                (tile.y_stop - tile.y_start, tile.x_stop - tile.x_start),
            )
            for tile in batch
        ]
        items = list(zip(embeddings, moved, strict=True))
        yield from zip(batch, executor.segment(items, **options.keywords()), strict=True)


def _tile_of(prompt: Prompt, image_hw: Hw, tile_px: int) -> Window:
    """The tile with the widest margin around a prompt, or the whole picture if none has one."""
    height, width = image_hw
    given = [part for part in (prompt.box_xyxy, prompt.point_coords) if part is not None]
    points = np.concatenate([part.reshape(-1, 2) for part in given])
    (x_low, y_low), (x_high, y_high) = points.min(axis=0), points.max(axis=0)
    x, y = _best_start(x_low, x_high, width, tile_px), _best_start(y_low, y_high, height, tile_px)
    if x is None or y is None:
        return Window(0, 0, width, height, 0)
    return Window(x, y, min(x + tile_px, width), min(y + tile_px, height), 0)


def _best_start(low: float, high: float, length: int, tile_px: int) -> int | None:
    """Where along one side of the picture the tile begins; None if none holds low to high."""
    last = max(length - tile_px, 0)
    starts = np.append(np.arange(0, last, tile_px // 2), last)
    # The edges of the picture cut nothing off, so there the margin does not count.
    before = np.where(starts == 0, np.inf, low - starts)
    after = np.where(starts == last, np.inf, starts + tile_px - high)
    margins = np.minimum(before, after)
    best = int(margins.argmax())
    return int(starts[best]) if margins[best] >= 0 else None


def _move(prompt: Prompt, tile: Window) -> Prompt:
    corner = np.array(tile[:2], np.float32)
    box, points = prompt.box_xyxy, prompt.point_coords
    return replace(
        prompt,
        box_xyxy=None if box is None else box - np.tile(corner, 2),
        point_coords=None if points is None else points - corner,
    )
