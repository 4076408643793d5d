"""For tests, ours and those of plugin authors: a model-free executor and a check of a block.

Neither pytest nor torch is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sam2_blocks.engine.plugins import Plugins, load_plugins
from sam2_blocks.engine.records import Item, ItemResult
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.runner import Runner
from sam2_blocks.executors import FoundObjects
from sam2_blocks.kinds import (
    BUILTIN_KINDS,
    SAMPLE_HW,
    Kind,
    find_kind,
    sample_detections,
    sample_embedding,
    sample_image,
)
from sam2_blocks.language.items import item_problems
from sam2_blocks.language.manifest import Example, Manifest
from sam2_blocks.language.pipeline import Pipeline, load_pipeline, one_step
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

__all__ = [
    "SAMPLE_HW",
    "FakeDetector",
    "FakeExecutor",
    "FakeTrackSession",
    "check_block",
    "check_host",
    "example_pipeline",
    "run_block",
    "sample_detections",
    "sample_embedding",
    "sample_image",
    "sample_value",
]

DEFAULT_TRACKING = TrackSettings()

BUILTINS = {kind.name: kind for kind in BUILTIN_KINDS}


class FakeExecutor:
    """An executor without a model: a box gives the filled box, a point a 5x5 square around it.

    Attributes:
        embedded: ids of the pictures it encoded, in order.
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
        """Fill the prompts."""
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
        """Find one object of each class."""
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
        """Find one object of each phrase."""
        self.looked_at.append(len(images))
        return [_side_by_side(image.hw, phrases, threshold) for image in images]


def sample_value(kind: Kind | str, *, empty: bool = False) -> Any:
    """A value of a kind.

    Args:
        kind: the kind, or the name of a built-in one or of lists of one.
        empty: give detections and prompts without rows, and the picture another name.

    Raises:
        LookupError: for a kind that has no sample; give it one, or pass one to `check_block`.
    """
    found = find_kind(kind, BUILTINS) if isinstance(kind, str) else kind
    if found is None or found.sample is None:
        name = kind if isinstance(kind, str) else kind.name
        raise LookupError(f"no sample of kind {name!r}; pass one to check_block(samples=…)")
    return found.sample(empty)


def run_block(
    block_id: str,
    inputs: Mapping[str, Any],
    *,
    plugins: Plugins | None = None,
    resources: Resources | None = None,
    **params: Any,
) -> ItemResult:
    """Run one block on one item, as a pipeline of one step.

    Args:
        block_id: such as ``opencv/detect@v1``.
        inputs: values of the block's inputs.
        plugins: where the block is; the installed plugins if not given.
        resources: executors; the fake one if not given.
        params: parameters of the block.

    Returns:
        Outputs under their names in the manifest, or the errors.
    """
    plugins = plugins or load_plugins(strict=True)
    manifest = plugins.manifests[block_id]
    document = one_step({name: f"$inputs.{name}" for name in inputs} | params, manifest)
    pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
    [result] = _run(pipeline, [Item("item", inputs)], plugins, resources)
    return result


def _run(
    pipeline: Pipeline, items: Sequence[Item], plugins: Plugins, resources: Resources | None
) -> list[ItemResult]:
    with TemporaryDirectory() as folder:
        executors = dict.fromkeys(("sam2", "fake"), FakeExecutor)
        resources = resources or Resources({**executors, "transformers": FakeDetector}, folder)
        with Runner(pipeline, plugins, resources=resources) as runner:
            return list(runner.run(items))


def check_block(
    block_id: str,
    *,
    plugins: Plugins | None = None,
    samples: Mapping[str, Any] | None = None,
    resources: Resources | None = None,
) -> None:
    """Run every example of a block's manifest and check what comes out.

    Where the block declares a `Protocol` of its items, that is compared with the manifest.

    Each example becomes a pipeline of one step. It is run on sample values of its inputs' kinds and
    on empty ones; the runner checks the outputs against their kinds.

    Args:
        block_id: such as ``opencv/detect@v1``.
        plugins: where the block is; the installed plugins if not given.
        samples: values by input name, instead of the sample of its kind.
        resources: executors; the ``fake`` one if not given.

    Raises:
        AssertionError: if the block has no example, an example fails, or the block's items are not
            those of the manifest.
    """
    plugins = plugins or load_plugins(strict=True)
    if block_id not in plugins.manifests:
        raise AssertionError(f"no block {block_id!r}; there are {sorted(plugins.manifests)}")
    manifest = plugins.manifests[block_id]
    if not manifest.examples:
        raise AssertionError(
            f"{block_id}: the manifest has no examples, so there is nothing to run"
        )
    differences = list(item_problems(manifest.load_entry(), manifest))
    if differences:
        raise AssertionError(f"{block_id}: " + "; ".join(differences))
    for example in manifest.examples:
        _run_example(manifest, example, plugins, samples or {}, resources)


def _run_example(
    manifest: Manifest,
    example: Example,
    plugins: Plugins,
    samples: Mapping[str, Any],
    resources: Resources | None,
) -> None:
    pipeline = example_pipeline(manifest, example, plugins)
    items = []
    for item_id, empty in (("sample", False), ("empty", True)):
        made = {
            name: samples[name] if name in samples else _sample(given.kinds[0], plugins, empty)
            for name, given in pipeline.inputs.items()
        }
        items.append(Item(item_id, made))
    for result in _run(pipeline, items, plugins, resources):
        for error in result.errors:
            title = f"{manifest.id}, example {example.title!r}, item {result.id!r}"
            raise AssertionError(f"{title}: {error.cause}: {error.message}")


def _sample(name: str, plugins: Plugins, empty: bool) -> Any:
    kind = find_kind(name, plugins.kinds)
    return sample_value(name if kind is None else kind, empty=empty)


Segment = Callable[[Image, Any, Mapping[str, Any]], Any]
"""``segment(image, boxes, params) -> sv.Detections``, run by a host."""


def check_host(
    segment: Segment,
    *,
    image: Image | None = None,
    params: Mapping[str, Any] | None = None,
    resources: Resources | None = None,
) -> None:
    """Check that ``sam2/segment@v1`` gives the same in a host as in our own runner.

    Masks are compared byte for byte, and every column that the detector or the model filled.

    Args:
        segment: runs the block inside the host on one picture and the detections in it.
        image: the picture; a small one if not given.
        params: parameters of the block, for both.
        resources: executors; hand the same to the host. The ``fake`` one if not given.

    Raises:
        AssertionError: naming the first difference.
    """
    image = image or sample_image()
    params = params or {}
    plugins = load_plugins(points=[])
    for count in (0, 1, 2):
        inputs = {"image": image, "boxes": _boxes_of_a_detector(image.hw, count)}
        ours = run_block("sam2/segment@v1", inputs, plugins=plugins, resources=resources, **params)
        theirs = segment(image, inputs["boxes"], params)
        _compare_detections(theirs, ours.outputs["predictions"], f"{count} boxes")


def _boxes_of_a_detector(image_hw: Hw, count: int) -> Any:
    """Boxes with a class, a confidence, an id and a column that only their detector knows."""
    from sam2_blocks.formats.rows import rows_to_detections

    scale = np.tile(np.array(image_hw[::-1]) / np.array(SAMPLE_HW[::-1]), 2)
    rows = [
        {"box_xyxy": (scale * box).tolist(), "class_name": name, "class_id": index, "confidence": c}
        for index, (box, name, c) in enumerate(
            [((2, 3, 12, 15), "face", 0.9), ((14, 5, 30, 20), "object", 0.6)]
        )
    ]
    boxes = rows_to_detections(rows[:count])
    boxes.data["detection_id"] = np.array([f"box-{index}" for index in range(count)], np.str_)
    boxes.data["colour"] = np.array(["red", "blue"][:count], np.str_)
    return boxes


def _compare_detections(found: Any, wanted: Any, where: str) -> None:
    columns = ("class_name", "prompt_index", "iou_prediction", "colour")
    pairs = {name: (found.data.get(name), wanted.data.get(name)) for name in columns}
    pairs["mask"] = (_counts(found), _counts(wanted))
    pairs |= {
        name: (getattr(found, name), getattr(wanted, name))
        for name in ("xyxy", "confidence", "class_id")
    }
    if len(wanted):
        prompted = "prompt_detection_id"
        pairs[prompted] = (found.data.get(prompted), wanted.data[prompted])
    for name, (got, expected) in pairs.items():
        if not (got == expected if name == "mask" else np.array_equal(got, expected)):
            raise AssertionError(f"{where}: {name!r} is {got}, but our own runner gave {expected}")


def _counts(detections: Any) -> list[list[int]]:
    from sam2_blocks.masks.detections import to_rles

    return [rle.counts.tolist() for rle in to_rles(detections)]


def example_pipeline(manifest: Manifest, example: Example, plugins: Plugins) -> Pipeline:
    """The pipeline of one step that an example stands for."""
    return load_pipeline(one_step(example.with_, manifest), plugins.manifests, plugins.kinds)


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
