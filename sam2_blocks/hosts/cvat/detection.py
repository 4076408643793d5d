"""A detection function of CVAT: a pipeline finds and cuts the objects of every frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.engine.records import Item
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.runner import Runner
from sam2_blocks.errors import PipelineError, Problem, Sam2BlocksError
from sam2_blocks.formats.plain import DumpOptions
from sam2_blocks.formats.rows import detections_to_rows
from sam2_blocks.hosts.bridge import NO_CLASS, ends_of
from sam2_blocks.hosts.cvat import WRITES
from sam2_blocks.hosts.cvat.shapes import (
    load_sdk,
    picture_to_image,
    rle_to_outlines,
    rle_to_points,
)
from sam2_blocks.language.pipeline import Pipeline
from sam2_blocks.masks.rle import coco_to_rle, rle_area


class Detection:
    """A detection function; see ``cvat_sdk.auto_annotation.DetectionFunction``.

    Args:
        pipeline: as `load_pipeline` makes it.
        labels: names of classes; objects of others are left out, and objects without a class are
            of the only one.
        runner: runs the pipeline.
        inputs: values of its other inputs.

    Attributes:
        spec: the labels, for CVAT.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        labels: Sequence[str],
        runner: Runner,
        inputs: dict[str, Any],
    ) -> None:
        self._sdk = load_sdk()
        self._image, self._output = ends_of(pipeline, inputs)
        self._ids = {name.lower(): index for index, name in enumerate(labels)}
        self._runner = runner
        self._inputs = inputs
        specs = [self._sdk.label_spec(name, index) for index, name in enumerate(labels)]
        self.spec = self._sdk.DetectionFunctionSpec(labels=specs)

    def detect(self, context: Any, image: Any) -> list[Any]:
        """Find the objects of one frame.

        Args:
            context: CVAT's, with ``frame_name``, ``conf_threshold`` and ``conv_mask_to_poly``.
            image: a Pillow picture.

        Returns:
            Masks or, where CVAT asks for them, polygons; rectangles of objects without a mask.

        Raises:
            Sam2BlocksError: if a step fails.
        """
        values = {**self._inputs, self._image: picture_to_image(image, context.frame_name)}
        [result] = self._runner.run([Item(context.frame_name, values)])
        if result.errors:
            raise Sam2BlocksError("; ".join(error.message for error in result.errors))
        found = result.outputs.get(self._output)
        rows = [] if found is None else detections_to_rows(found, DumpOptions(polygons=False))
        least = context.conf_threshold or 0.0
        return [
            shape
            for row in rows
            if row.get("confidence") is None or row["confidence"] >= least
            for shape in self._shapes(row, to_polygons=context.conv_mask_to_poly)
        ]

    def _shapes(self, row: dict[str, Any], *, to_polygons: bool) -> Iterator[Any]:
        label = self._label_of(str(row.get("class_name") or ""))
        if label is None:
            return
        if "segmentation" not in row:
            yield self._sdk.rectangle(label, row["box_xyxy"])
            return
        rle = coco_to_rle(row["segmentation"])
        if rle_area(rle) and to_polygons:
            for points in rle_to_outlines(rle):
                yield self._sdk.polygon(label, points)
        elif rle_area(rle):
            yield self._sdk.mask(label, rle_to_points(rle))

    def _label_of(self, class_name: str) -> int | None:
        if class_name in NO_CLASS and len(self._ids) == 1:
            return 0
        return self._ids.get(class_name.lower())


def create(
    pipeline: str, labels: str = "object", *, resources: Resources | None = None, **inputs: Any
) -> Detection:
    """Make a detection function.

    Args:
        pipeline: path of a pipeline with one image as input; its first output of detections is
            used.
        labels: names of classes, separated by commas.
        resources: models to share; new ones if not given.
        inputs: values of the pipeline's other inputs, such as ``model``.

    Raises:
        PipelineError: if the pipeline is wrong, or writes files.
        Sam2BlocksError: if it has no such input or output, or there is no label.
    """
    plugins = load_plugins()
    loaded = plugins.load_pipeline(Path(pipeline))
    _check(loaded, inputs)
    names = [name for name in map(str.strip, labels.split(",")) if name]
    if not names:
        raise Sam2BlocksError("labels: give names of classes, separated by commas.")
    runner = Runner(loaded, plugins, resources=resources or plugins.resources())
    return Detection(loaded, names, runner, inputs)


def _check(pipeline: Pipeline, inputs: dict[str, Any]) -> None:
    """Refuse what would only come out with the first frame."""
    problems = [
        Problem(f"{step.manifest.id} {WRITES}. Remove the step.", f"steps.{step.id}")
        for step in pipeline.steps
        if step.manifest.file_access == "write"
    ]
    if problems:
        raise PipelineError(pipeline.source, problems)
    ends_of(pipeline, inputs)
    unknown = sorted(inputs.keys() - pipeline.inputs.keys())
    if unknown:
        raise Sam2BlocksError(
            f"{pipeline.source} has no input {unknown[0]!r}; it has {list(pipeline.inputs)}."
        )
