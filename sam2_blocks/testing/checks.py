"""Checks of a block or of a host, in a pipeline of one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sam2_blocks.engine.plugins import Plugins, load_plugins
from sam2_blocks.engine.records import Item, ItemResult
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.runner import Runner
from sam2_blocks.kinds import BUILTIN_KINDS, SAMPLE_HW, Kind, find_kind, sample_image
from sam2_blocks.language.items import item_problems
from sam2_blocks.language.manifest import Example, Manifest
from sam2_blocks.language.pipeline import Pipeline, load_pipeline, one_step
from sam2_blocks.testing.fakes import FakeDetector, FakeExecutor
from sam2_blocks.values import Hw, Image

BUILTINS = {kind.name: kind for kind in BUILTIN_KINDS}


def sample_value(kind: Kind | str, *, empty: bool = False) -> Any:
    """Make a small value of a kind, for a test.

    Args:
        kind: the kind, or the name of a built-in one or of lists of one.
        empty: give detections and prompts without rows, and the picture another name.

    Raises:
        LookupError: for a kind that has no sample; give it one, or pass one to `check_block`.

    Example:
        >>> sample_value("image").hw, len(sample_value("list of image"))
        ((24, 32), 2)
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

    Raises:
        PipelineError: if the block has no such input or parameter, or lacks a required one.

    Example:
        >>> from sam2_blocks.testing import run_block, sample_image
        >>> run_block("image/rotate@v1", {"image": sample_image()}, degrees=270).errors
        ()
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

    Example:
        >>> from sam2_blocks.testing import check_block
        >>> check_block("image/rotate@v1")
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
