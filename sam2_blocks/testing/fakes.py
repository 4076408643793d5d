"""Models without a model, for tests that need no weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.kinds import sample_embedding
from sam2_blocks.masks.rle import (
    mask_to_rle,
    masks_to_prediction,
    rle_to_mask,
    rles_to_boxes_xyxy,
)
from sam2_blocks.options import AutomaticSettings, SegmentOptions, TrackSettings
from sam2_blocks.values import (
    DEFAULT_FAMILY,
    AutomaticMasks,
    Embedding,
    ExecutorSpec,
    Float32Array,
    Hw,
    Image,
    MaskPrediction,
    Prompt,
    PromptSet,
    Rle,
    Tracks,
    TrackState,
)

DEFAULT_TRACKING = TrackSettings()


class FakeExecutor:
    """An executor without a model: a box gives the filled box, a point a 5x5 square around it.

    Every mask has the predicted IoU 0.75. Embeddings are zeros, and low-resolution logits too.

    Attributes:
        embedded: ids of the pictures it encoded, in order.

    Example:
        >>> from sam2_blocks import Image, PromptSet
        >>> executor = FakeExecutor()
        >>> [embedding] = executor.embed([Image(np.zeros((20, 30, 3), np.uint8), "a")])
        >>> boxes = PromptSet.from_boxes([[5, 2, 15, 8]])
        >>> [prediction] = executor.segment([(embedding, boxes)])
        >>> prediction.mask_box_xyxy.tolist(), executor.embedded
        ([[5, 2, 14, 7]], ['a'])
    """

    def __init__(
        self,
        model: str = "fake",
        *,
        device: str = "cpu",
        dtype: str = "float32",
        backend: str = "auto",
        input_px: int = 0,
    ) -> None:
        family = model.partition(":")[0] if ":" in model else DEFAULT_FAMILY
        self.spec = ExecutorSpec(model, "cpu", "float32", family, input_px=input_px)
        self.embedded: list[str] = []

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """Encode pictures into zeros."""
        self.embedded += [image.id for image in images]
        return [sample_embedding(image, self.spec) for image in images]

    def segment(
        self,
        items: Sequence[tuple[Embedding, PromptSet]],
        *,
        multimask_output: bool = True,
        mask_threshold: float = 0.0,
        max_hole_area: int = 0,
        max_sprinkle_area: int = 0,
        return_candidates: bool = False,
    ) -> list[MaskPrediction]:
        """Fill the prompts, one mask each; the options are checked and change nothing."""
        SegmentOptions(multimask_output, mask_threshold, max_hole_area, max_sprinkle_area).checked()
        return [_fill_prompts(embedding.image_hw, prompts) for embedding, prompts in items]

    def propose_masks(
        self,
        embedding: Embedding,
        points_xy: Float32Array,
        settings: AutomaticSettings,
        *,
        return_logits: bool = False,
    ) -> AutomaticMasks:
        """Fill the square around every point."""
        prediction = _fill_prompts(embedding.image_hw, PromptSet.from_points(points_xy))
        return AutomaticMasks(prediction, points_xy, np.ones(len(points_xy), np.float32))

    def track(self, settings: TrackSettings = DEFAULT_TRACKING) -> FakeTrackSession:
        """Follow objects that do not move."""
        return FakeTrackSession(settings)


class FakeTrackSession:
    """A session without a model: objects stay where they were prompted, and are lost in the dark.

    An object is seen, with score 5, where its mask covers any pixel that is not black; else its
    score is -5.

    Attributes:
        frames: ids of the frames it took, in order.
        expected: ids of the frames that were announced, in order.
        ahead: how many it wants announced.
        closed: whether it was closed.
    """

    ahead = 2

    def __init__(self, settings: TrackSettings = DEFAULT_TRACKING) -> None:
        self.settings = settings
        self.frames: list[str] = []
        self.expected: list[str] = []
        self.closed = False
        self._objects: dict[int, Rle] = {}
        self._new: set[int] = set()
        self._next_id = 1
        self._image: Image | None = None

    def __enter__(self) -> FakeTrackSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def tracker_ids(self) -> tuple[int, ...]:
        """The objects that are followed."""
        return tuple(self._objects)

    @property
    def nbytes(self) -> int:
        """Nothing is remembered."""
        return 0

    def expect(self, image: Image) -> None:
        """Write down that a frame was announced."""
        self.expected.append(image.id)

    def step(
        self,
        image: Image,
        prompts: PromptSet | Sequence[Prompt | Rle] | None = None,
        tracker_ids: Sequence[int | None] | None = None,
    ) -> Tracks:
        """Take the next frame."""
        self.frames.append(image.id)
        self._image, self._new = image, set()
        return self.prompt(prompts or (), tracker_ids)

    def prompt(
        self,
        prompts: PromptSet | Sequence[Prompt | Rle],
        tracker_ids: Sequence[int | None] | None = None,
    ) -> Tracks:
        """Put objects where their prompts are."""
        assert self._image is not None
        given = prompts.prompts if isinstance(prompts, PromptSet) else tuple(prompts)
        ids = [None] * len(given) if tracker_ids is None else list(tracker_ids)
        for prompt, tracker_id in zip(given, ids, strict=True):
            key = self._next_id if tracker_id is None else tracker_id
            self._new |= {key} - set(self._objects)
            self._objects[key] = _fill_prompt(self._image.hw, prompt)
            self._next_id = max(self._next_id, key + 1)
        return self._tracks(self._image)

    def correct(self, tracker_id: int, prompt: Prompt | Rle, *, keep: bool = False) -> Tracks:
        """Put one object elsewhere."""
        return self.prompt([prompt], [tracker_id])

    def remove(self, tracker_id: int) -> None:
        """Forget one object."""
        del self._objects[tracker_id]

    def reset(self) -> None:
        """Forget all objects."""
        self._objects.clear()

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _tracks(self, image: Image) -> Tracks:
        bright = image.pixels.any(axis=2)
        masks = [rle_to_mask(rle) for rle in self._objects.values()]
        seen = np.array([bool((mask & bright).any()) for mask in masks], bool)
        shown = [
            mask if is_seen else mask & False for mask, is_seen in zip(masks, seen, strict=True)
        ]
        states: list[TrackState] = [
            "new" if key in self._new else "tracked" if is_seen else "lost"
            for key, is_seen in zip(self._objects, seen, strict=True)
        ]
        return Tracks(
            masks_to_prediction(np.array(shown, bool).reshape(-1, *image.hw)),
            np.array(list(self._objects), np.int64),
            np.where(seen, 5, -5).astype(np.float32),
            tuple(states),
        )


class FakeDetector:
    """A detector without a model: one object of each class or phrase, side by side.

    The objects share the middle half of the picture from left to right, the first one the most
    certain.

    Attributes:
        looked_at: how many pictures or tiles each call was about, in order.
    """

    class_names = ("person", "dog", "object")

    def __init__(self, model: str = "fake", *, device: str = "cpu", dtype: str = "float32") -> None:
        bare = model.removeprefix("transformers:")
        self.spec = ExecutorSpec(bare, "cpu", "float32", "transformers")
        self.looked_at: list[int] = []

    def detect(
        self, images: Sequence[Image], *, threshold: float, size_px: int = 0
    ) -> list[FoundObjects]:
        """Find one object of each class, if its confidence is above the threshold."""
        self.looked_at.append(len(images))
        return [_side_by_side(image.hw, self.class_names, threshold) for image in images]

    def ground(
        self,
        images: Sequence[Image],
        phrases: Sequence[str],
        *,
        threshold: float,
        text_threshold: float,
    ) -> list[FoundObjects]:
        """Find one object of each phrase, if its confidence is above the threshold."""
        self.looked_at.append(len(images))
        return [_side_by_side(image.hw, phrases, threshold) for image in images]


def _side_by_side(image_hw: Hw, names: Sequence[str], threshold: float) -> FoundObjects:
    height, width = image_hw
    edges = np.linspace(width / 4, width * 3 / 4, len(names) + 1)
    boxes = [(x0, height / 4, x1, height * 3 / 4) for x0, x1 in pairwise(edges)]
    confidence = np.linspace(0.9, 0.5, len(names), dtype=np.float32)
    found = FoundObjects(
        image_hw=image_hw,
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=confidence,
        class_ids=np.arange(len(names)),
        class_names=tuple(names),
    )
    return found.select(np.flatnonzero(confidence > threshold))


def _fill_prompts(image_hw: Hw, prompts: PromptSet) -> MaskPrediction:
    rles = tuple(_fill_prompt(image_hw, prompt) for prompt in prompts.prompts)
    return MaskPrediction(
        image_hw=image_hw,
        rles=rles,
        iou_prediction=np.full(len(rles), 0.75, dtype=np.float32),
        low_res_logits=np.zeros((len(rles), 8, 8), dtype=np.float32),
        mask_box_xyxy=rles_to_boxes_xyxy(rles),
    )


def _fill_prompt(image_hw: Hw, prompt: Prompt | Rle) -> Rle:
    if isinstance(prompt, Rle):
        return prompt
    mask = np.zeros(image_hw, dtype=bool)
    if prompt.box_xyxy is not None:
        x0, y0, x1, y1 = (round(float(value)) for value in prompt.box_xyxy)
        mask[y0:y1, x0:x1] = True
    elif prompt.point_coords is not None:
        x, y = (round(float(value)) for value in prompt.point_coords[0])
        mask[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = True
    return mask_to_rle(mask)
