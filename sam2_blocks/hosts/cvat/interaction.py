"""An interaction function of CVAT: clicks and a box become one mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.executors import Executor
from sam2_blocks.hosts.cvat.shapes import load_sdk, picture_to_image, rle_to_shape
from sam2_blocks.prompts import check_prompts
from sam2_blocks.values import Embedding, Prompt, PromptSet


class Interaction:
    """An interaction function; see ``cvat_sdk.auto_annotation.InteractionFunction``.

    Args:
        executor: what embeds and segments.

    Attributes:
        spec: what prompts it takes: any of them.
    """

    def __init__(self, executor: Executor) -> None:
        self._sdk = load_sdk()
        self._executor = executor
        self.spec = self._sdk.InteractionFunctionSpec(
            min_pos_points=0, min_neg_points=0, min_bounding_boxes=0
        )

    def preprocess_image(self, context: Any, image: Any) -> Embedding:
        """Embed a frame, once for all clicks on it."""
        [embedding] = self._executor.embed([picture_to_image(image)])
        return embedding

    def detect(self, context: Any, pp_image: Embedding, prompts: Any) -> list[Any]:
        """Make a mask.

        Args:
            context: not read.
            pp_image: as `preprocess_image` made it.
            prompts: CVAT's, with ``pos_points``, ``neg_points`` and ``bounding_box``.

        Returns:
            The mask as one shape with its confidence; none if it is empty.

        Raises:
            ValueError: if nothing says where the object is, or a prompt is outside of the frame.
        """
        given = PromptSet((_to_prompt(prompts),))
        checked = check_prompts(given, pp_image.image_hw, warn=False)
        [prediction] = self._executor.segment([(pp_image, checked)])
        points = rle_to_shape(prediction.rles[0], "mask")
        if points is None:
            return []
        confidence = float(np.clip(prediction.iou_prediction[0], 0, 1))
        return [
            self._sdk.InteractionResultShape(
                type="mask", points=points, attributes=[self._confidence(confidence)]
            )
        ]

    def _confidence(self, value: float) -> Any:
        from cvat_sdk import models

        spec_id = self._sdk.InteractionResultAttributes.CONFIDENCE
        return models.AttributeValRequest(spec_id=int(spec_id), value=f"{value:.4f}")


def create(
    model: str = "nano",
    device: str = "auto",
    dtype: str = "auto",
    *,
    resources: Resources | None = None,
) -> Interaction:
    """Make an interaction function.

    Args:
        model: name of a model, or path of a checkpoint.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: ``auto``, ``float32``, ``bfloat16``, ``float16`` or ``int8``.
        resources: models to share; new ones if not given.

    Raises:
        ModelError: if it cannot be loaded.
        MissingExtraError: if cvat-sdk is not installed.
    """
    load_sdk()  # before a model is loaded
    resources = resources or load_plugins().resources()
    return Interaction(resources.executor(model, device=device, dtype=dtype))


def _to_prompt(prompts: Any) -> Prompt:
    inside, beside = list(prompts.pos_points), list(prompts.neg_points)
    corners = prompts.bounding_box
    if not inside and corners is None:
        raise ValueError("nothing says where the object is: click on it, or draw a box around it.")
    points = np.array([*inside, *beside], np.float32) if inside or beside else None
    labels = np.array([1] * len(inside) + [0] * len(beside), np.int32)
    box = None if corners is None else np.array(corners, np.float32).reshape(4)
    return Prompt(box, points, None if points is None else labels)
