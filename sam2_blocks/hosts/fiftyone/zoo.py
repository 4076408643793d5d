"""Models of FiftyOne's zoo: `sam2/segment` where there are prompts, `sam2/automatic`, a pipeline.

A zoo's remote source is a module with the functions below. What they need of FiftyOne is imported
when they are called.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.engine.records import Item
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.runner import Runner
from sam2_blocks.errors import MissingExtraError, Sam2BlocksError
from sam2_blocks.formats.images import array_to_image
from sam2_blocks.hosts.bridge import BlockBridge, ends_of
from sam2_blocks.hosts.fiftyone.labels import boxes_of, prompts_of, to_fiftyone
from sam2_blocks.values import Image

PIPELINE = "pipeline"
"""The model of the zoo that runs a pipeline; all others are named like ours."""
PREDICTIONS = "predictions"


def download_model(model_name: str, model_path: str) -> None:
    """Download the weights of a model of the zoo into our own cache, and say so in a file.

    Args:
        model_name: such as ``sam2_blocks/hiera_tiny``.
        model_path: the file that FiftyOne looks for.

    Raises:
        ModelError: if there is no such model, or it cannot be had.
    """
    name = _name_of(model_name)
    if name != PIPELINE:
        from sam2_blocks.executor.weights.catalogue import find_model
        from sam2_blocks.executor.weights.download import ensure_weights

        spec = find_model(name)
        if spec.url is not None:  # else they came with the package
            ensure_weights(spec)
    Path(model_path).write_text(json.dumps({"model": name}), encoding="utf-8")


def load_model(
    model_name: str,
    model_path: str,
    *,
    pipeline: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    resources: Resources | None = None,
    **params: Any,
) -> Any:
    """Load a model of the zoo.

    Args:
        model_name: such as ``sam2_blocks/nano``, or ``sam2_blocks/pipeline``.
        model_path: as `download_model` got it.
        pipeline: path of a pipeline with one image; its first output of detections is the label.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: ``auto``, ``float32``, ``bfloat16``, ``float16`` or ``int8``.
        resources: models to share; new ones if not given.
        params: further parameters of ``sam2/segment@v1`` or ``sam2/automatic@v1``, whichever has
            them; inputs of a pipeline.

    Returns:
        A ``fiftyone.Model`` for ``dataset.apply_model(model, label_field=…, prompt_field=…)``.

    Raises:
        MissingExtraError: if FiftyOne is not installed.
        Sam2BlocksError: if the pipeline or a parameter is wrong.
    """
    name = _name_of(model_name)
    resources = resources or load_plugins().resources()
    if name == PIPELINE:
        if pipeline is None:
            raise Sam2BlocksError(f"{model_name}: give pipeline=PATH of the pipeline to run.")
        return model_class()(_PipelineFinder(pipeline, resources, params))
    chosen = {"model": name, "device": device, "dtype": dtype, **params}
    return model_class()(_BlockFinder(resources, chosen))


def resolve_input(model_name: str, ctx: Any) -> Any:
    """Describe the options of a model, for the forms of FiftyOne's app.

    Args:
        model_name: as `load_model` gets it.
        ctx: not read.
    """
    from fiftyone.operators import types

    inputs = types.Object()
    if _name_of(model_name) == PIPELINE:
        about = "A YAML file with one image as input and detections as output."
        inputs.str("pipeline", required=True, label="Pipeline", description=about)
    else:
        inputs.str("device", default="auto", label="Device", description="auto, cpu, cuda or mps")
    return types.Property(inputs)


def _name_of(model_name: str) -> str:
    return model_name.rpartition("/")[2]


class _BlockFinder:
    """Finds what prompts mean, or everything, with the blocks for that."""

    def __init__(self, resources: Resources, params: dict[str, Any]) -> None:
        plugins = load_plugins()
        self._bridges, self._params = {}, {}
        known: set[str] = set()
        for block in ("sam2/segment@v1", "sam2/automatic@v1"):
            manifest = plugins.manifests[block]
            known |= manifest.params.keys()
            self._bridges[block] = BlockBridge(manifest, plugins, resources)
            self._params[block] = {n: v for n, v in params.items() if n in manifest.params}
        unknown = sorted(params.keys() - known)
        if unknown:
            raise Sam2BlocksError(
                f"there is no parameter {unknown[0]!r}; there are {sorted(known)}."
            )

    def find(self, image: Image, prompts: Any) -> sv.Detections:
        """Cut what a label of FiftyOne marks, or everything if there is none."""
        if prompts is None:
            return self._run("sam2/automatic@v1", {"image": image})
        if hasattr(prompts, "keypoints"):
            rows, names = prompts_of(prompts, image.hw)
            found = self._run("sam2/segment@v1", {"image": image, "prompts": rows})
            found.data["class_name"] = np.array(names, np.str_)[found.data["prompt_index"]]
            return found
        boxes = boxes_of(prompts, image.hw)
        return self._run("sam2/segment@v1", {"image": image, "boxes": boxes})

    def _run(self, block: str, inputs: dict[str, Any]) -> sv.Detections:
        [outputs] = self._bridges[block].run([{**inputs, **self._params[block]}])
        found: sv.Detections = outputs[PREDICTIONS]
        return found


class _PipelineFinder:
    """Finds what a pipeline finds."""

    def __init__(self, pipeline: str | Path, resources: Resources, inputs: dict[str, Any]) -> None:
        plugins = load_plugins()
        loaded = plugins.load_pipeline(Path(pipeline))
        self._image, self._output = ends_of(loaded, inputs)
        self._inputs = inputs
        self._runner = Runner(loaded, plugins, resources=resources)

    def find(self, image: Image, prompts: Any) -> sv.Detections:
        """Run the pipeline; it has no place for prompts."""
        if prompts is not None:
            raise Sam2BlocksError("a pipeline takes no prompt_field. Leave it out.")
        [result] = self._runner.run([Item(image.id, {**self._inputs, self._image: image})])
        if result.errors:
            raise Sam2BlocksError("; ".join(error.message for error in result.errors))
        found: sv.Detections | None = result.outputs.get(self._output)
        return sv.Detections.empty() if found is None else found


@cache
def model_class() -> Any:
    """Make the class of our models, whose base is FiftyOne's.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        from fiftyone.core.labels import Detections
        from fiftyone.core.models import Model, SamplesMixin
    except ImportError as error:
        raise MissingExtraError(f"{error}. Run: pip install fiftyone") from error

    class Sam2BlocksModel(SamplesMixin, Model):  # type: ignore[misc]
        """A model of FiftyOne: pictures in, ``Detections`` with masks out."""

        media_type = "image"
        ragged_batches = True
        transforms = None
        preprocess = False

        def __init__(self, finder: _BlockFinder | _PipelineFinder) -> None:
            super().__init__()
            self._finder = finder

        def predict(self, arg: Any, sample: Any = None) -> Any:
            """Find objects in a picture, uint8 RGB (H, W, 3), prompted by a field of its sample."""
            field = self.needs_fields.get("prompt_field") or next(
                iter(self.needs_fields.values()), None
            )
            prompts = None
            if field and sample is not None:
                prompts = sample[field.removeprefix("frames.")]
                if prompts is None:
                    return Detections(detections=[])
            image = array_to_image(arg)
            return to_fiftyone(self._finder.find(image, prompts), image.hw)

    return Sam2BlocksModel
