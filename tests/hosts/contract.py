"""The contract of hosts whose values are no detections, such as tools that people label with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.testing import SAMPLE_HW, run_block, sample_image
from sam2_blocks.values import Hw, Image, Prompt, PromptSet

MaskOf = Callable[[Image, Prompt], NDArray[np.bool_]]
"""``mask_of(image, prompt) -> bool (H, W)``, made by a host."""


def check_host_masks(
    mask_of: MaskOf,
    *,
    image: Image | None = None,
    params: Mapping[str, Any] | None = None,
    resources: Resources | None = None,
    without: Collection[str] = (),
) -> None:
    """Check that a host makes the masks of our own runner of boxes and clicks.

    For hosts whose values are no detections, such as tools that people label with; see
    `check_host` for others.

    Args:
        mask_of: makes the mask of one prompt inside the host.
        image: the picture; a small one if not given.
        params: parameters of ``sam2/segment@v1``, as the host sets them.
        resources: executors; hand the same to the host. The ``fake`` one if not given.

        without: names of prompts that the host cannot say.

    Raises:
        AssertionError: naming the first difference.
    """
    image = image or sample_image()
    plugins = load_plugins(points=[])
    prompts = _prompts_of_a_labeller(image.hw)
    for name in [name for name in prompts if name not in without]:
        prompt = prompts[name]
        inputs = {"image": image, "prompts": PromptSet((prompt,))}
        result = run_block(
            "sam2/segment@v1", inputs, plugins=plugins, resources=resources, **(params or {})
        )
        ours, theirs = result.outputs["predictions"].mask[0], mask_of(image, prompt)
        if not np.array_equal(ours, theirs):
            sizes = f"{np.shape(theirs)} pixels, {np.sum(theirs)} of them inside"
            raise AssertionError(
                f"{name}: the mask has {sizes}, but our own runner gave {ours.shape}, {ours.sum()}"
            )


def _prompts_of_a_labeller(image_hw: Hw) -> dict[str, Prompt]:
    """A box, clicks, and both; corners on pixels, which hosts that count in percent hit, too."""
    scale = np.array(image_hw[::-1]) / np.array(SAMPLE_HW[::-1])
    box = (np.tile(scale, 2) * (4, 3, 16, 15)).round().astype(np.float32)
    inside = (scale * (8, 9)).round().astype(np.float32)
    beside = (scale * (28, 21)).round().astype(np.float32)
    both, labels = np.stack([inside, beside]), np.array([1, 0], np.int32)
    return {
        "a box": Prompt(box_xyxy=box),
        "a click": Prompt(None, inside[None], labels[:1]),
        "a click on and one beside": Prompt(None, both, labels),
        "a box and a click": Prompt(box, inside[None], labels[:1]),
    }
