"""Detectors and instance segmenters of fixed classes: pictures in, objects out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sam2_blocks.executor.transformers.network import Network
from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.masks.rle import mask_to_rle, rles_to_boxes_xyxy
from sam2_blocks.values import ExecutorSpec, Hw, Image, UInt8Array


class TransformersDetector:
    """A model behind ``AutoModelForObjectDetection``, or one that gives each object a mask.

    What it finds is what the library's own image processor makes of the network's outputs, in its
    order; see `sam2_blocks.executors.ObjectDetector`.

    Args:
        network: the network and its processor.
        makes_masks: whether it is a segmenter.
    """

    def __init__(self, network: Network, *, makes_masks: bool) -> None:
        self._network = network
        self._makes_masks = makes_masks
        self._names = {int(number): str(name) for number, name in network.config.id2label.items()}

    @property
    def spec(self) -> ExecutorSpec:
        """Resolved model, device and dtype."""
        return self._network.spec

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return self._network.nbytes

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes it knows."""
        return tuple(self._names.values())

    def warm_up(self) -> None:
        """Pay one-time costs now."""
        self.detect([Image(np.zeros((64, 64, 3), np.uint8), id="warm-up")], threshold=0.5)

    def detect(
        self, images: Sequence[Image], *, threshold: float, size_px: int = 0
    ) -> list[FoundObjects]:
        """Find objects; see `sam2_blocks.executors.ObjectDetector`."""

        def find(chunk: Sequence[Image]) -> list[FoundObjects]:
            sized = {"size": _resized(self._network.processor.size, size_px)} if size_px else {}
            inputs = self._network.prepare(chunk, **sized)
            outputs = self._network.network(**inputs)
            sizes = [image.hw for image in chunk]
            read = self._read_masks if self._makes_masks else self._read_boxes
            return read(outputs, sizes, threshold)

        return self._network.map_pictures(find, images)

    def _read_boxes(self, outputs: Any, sizes: list[Hw], threshold: float) -> list[FoundObjects]:
        found = self._network.processor.post_process_object_detection(
            outputs, threshold=threshold, target_sizes=sizes
        )
        return [
            self._name(
                hw,
                boxes_xyxy=of_picture["boxes"].float().cpu().numpy().reshape(-1, 4),
                confidence=of_picture["scores"].float().cpu().numpy(),
                class_ids=of_picture["labels"].cpu().numpy().astype(np.int64),
            )
            for hw, of_picture in zip(sizes, found, strict=True)
        ]

    def _read_masks(self, outputs: Any, sizes: list[Hw], threshold: float) -> list[FoundObjects]:
        """Read an instance segmenter; the box of an object is that of its mask."""
        read = self._network.processor.post_process_instance_segmentation
        binary = {"return_binary_maps": True}
        apart = binary if "return_binary_maps" in inspect.signature(read).parameters else {}
        found = read(outputs, threshold=threshold, target_sizes=sizes, **apart)
        made = []
        for hw, of_picture in zip(sizes, found, strict=True):
            rows = of_picture["segments_info"]
            maps = of_picture["segmentation"].cpu().numpy()
            rles = tuple(mask_to_rle(mask) for mask in _masks(maps, rows))
            made.append(
                self._name(
                    hw,
                    boxes_xyxy=rles_to_boxes_xyxy(rles).astype(np.float32).reshape(-1, 4),
                    confidence=np.array([row["score"] for row in rows], np.float32),
                    class_ids=np.array([row["label_id"] for row in rows], np.int64),
                    rles=rles,
                )
            )
        return made

    def _name(self, hw: Hw, **found: Any) -> FoundObjects:
        names = [self._names.get(int(i), f"class_{i}") for i in found["class_ids"]]
        return FoundObjects(image_hw=hw, class_names=tuple(names), **found)


def _masks(maps: UInt8Array, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """One mask a row: of a stack of masks, or of one map with the ids of the rows."""
    if maps.ndim == 3 and maps.dtype == bool:
        return list(maps)
    if maps.ndim == 3:
        return [mask > 0 for mask in maps]
    return [maps == row["id"] for row in rows]


def _resized(size: Mapping[str, int], size_px: int) -> dict[str, int]:
    """The processor's own size, in the same terms, with another length of its shorter side."""
    given = {name: length for name, length in dict(size).items() if length}
    if "longest_edge" in given and "shortest_edge" in given:
        longest = round(size_px * given["longest_edge"] / given["shortest_edge"])
        return {"shortest_edge": size_px, "longest_edge": longest}
    return dict.fromkeys(given, size_px)
