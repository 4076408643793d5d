"""A Python function as a block, for pipelines that are run from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import supervision as sv
from pydantic import PrivateAttr

from sam2_blocks.engine.resources import Resources
from sam2_blocks.language.manifest import Manifest
from sam2_blocks.values import UInt8Array

DetectFunction = Callable[[UInt8Array], sv.Detections]
"""``function(pixels) -> detections``; pixels are uint8, (H, W, 3), RGB."""

_OUTPUT_KINDS = [
    "object_detection_prediction",
    "instance_segmentation_prediction",
    "keypoint_detection_prediction",
]


class FunctionManifest(Manifest):
    """A manifest whose block is an object of this process, which no file can name."""

    _block: type[Any] = PrivateAttr()

    def load_entry(self) -> type[Any]:
        """Return the block's class."""
        return self._block


def detector_block(function: DetectFunction, block: str = "python/detect@v1") -> Manifest:
    """Make a block of any detector that can be called from Python.

    Hand it to `Plugins.with_blocks`; steps then name it in ``use``. It takes ``image`` and gives
    ``detections``, whose classes are called ``class_7`` and so on where they have numbers alone.

    Args:
        function: gets a copy of one picture, uint8 (H, W, 3) RGB, and returns what is in it. Called
            for one picture after another.
        block: the id to use it by.

    Raises:
        TypeError: if ``function`` cannot be called.
        ValueError: if ``block`` is no id of a block.

    Example:
        >>> import numpy as np, supervision as sv
        >>> from sam2_blocks import detector_block, load_plugins
        >>> def top_left(pixels):
        ...     return sv.Detections(np.array([[0, 0, 9, 9]], float), class_id=np.array([3]))
        >>> plugins = load_plugins(points=[]).with_blocks(detector_block(top_left))
        >>> plugins.manifests["python/detect@v1"].summary
        'What the Python function top_left finds.'
    """
    if not callable(function):
        raise TypeError(
            "detector_block wants a function of pixels that returns supervision.Detections, got "
            f"{type(function).__name__}."
        )
    name = getattr(function, "__name__", type(function).__name__)

    class DetectorFunction:
        """Calls the function."""

        def __init__(self, resources: Resources) -> None:
            pass

        def run(self, items: Sequence[Any]) -> Sequence[Mapping[str, sv.Detections] | Exception]:
            """See the manifest."""
            return [_call(function, name, item.image.pixels) for item in items]

    made = FunctionManifest.model_validate(
        {
            "manifest_version": 1,
            "id": block,
            "title": name,
            "summary": f"What the Python function {name} finds.",
            "entry": f"{__name__}:DetectorFunction",
            "inputs": {"image": {"kind": "image", "required": True}},
            "outputs": {"detections": {"kind": _OUTPUT_KINDS}},
            "examples": [{"title": "A picture", "with": {"image": "$inputs.image"}}],
        }
    )
    made._block = DetectorFunction
    return made


def _call(
    function: DetectFunction, name: str, pixels: UInt8Array
) -> Mapping[str, sv.Detections] | Exception:
    """Call the function, or say what was wrong with this picture."""
    found = function(pixels.copy())  # many draw on what they are given
    if not isinstance(found, sv.Detections):
        return TypeError(
            f"the function {name!r} must return supervision.Detections, got "
            f"{type(found).__name__}. Convert its answer, such as with "
            "sv.Detections.from_ultralytics or sam2_blocks.rows_to_detections."
        )
    if "class_name" in found.data or found.class_id is None:
        return {"detections": found}
    names = np.array([f"class_{i}" for i in found.class_id], np.str_)
    return {"detections": replace(found, data={**found.data, "class_name": names})}
