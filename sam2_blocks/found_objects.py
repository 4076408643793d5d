"""What a detector answers with: boxes, scores, classes and perhaps masks of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_blocks.values import Float32Array, Hw, Int64Array, Rle


@dataclass(frozen=True, eq=False)
class FoundObjects:
    """Objects found in one picture, by a detector or by phrases.

    Attributes:
        image_hw: size of the picture in pixels.
        boxes_xyxy: float32, (N, 4), pixels of the picture.
        confidence: float32, (N,), 0 to 1.
        class_ids: int64, (N,).
        class_names: N names, of these ids.
        rles: N masks, if the detector makes them.
    """

    image_hw: Hw
    boxes_xyxy: Float32Array
    confidence: Float32Array
    class_ids: Int64Array
    class_names: tuple[str, ...]
    rles: tuple[Rle, ...] | None = None

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    @classmethod
    def concatenate(cls, parts: Sequence[FoundObjects]) -> FoundObjects:
        """Gather what several detectors found in one picture, in the order of the parts.

        Args:
            parts: one or more, all of one picture.

        Returns:
            All objects; with masks only if every part has them.
        """
        rles = [part.rles for part in parts]
        return cls(
            image_hw=parts[0].image_hw,
            boxes_xyxy=np.concatenate([part.boxes_xyxy for part in parts]),
            confidence=np.concatenate([part.confidence for part in parts]),
            class_ids=np.concatenate([part.class_ids for part in parts]),
            class_names=tuple(name for part in parts for name in part.class_names),
            rles=None if None in rles else tuple(rle for of_part in rles for rle in of_part or ()),
        )

    def select(self, indices: NDArray[np.integer[Any]]) -> FoundObjects:
        """Return some of the objects, in the order of the indices.

        Args:
            indices: integers, (M,), of objects; one may be asked for several times.
        """
        return FoundObjects(
            image_hw=self.image_hw,
            boxes_xyxy=self.boxes_xyxy[indices],
            confidence=self.confidence[indices],
            class_ids=self.class_ids[indices],
            class_names=tuple(self.class_names[index] for index in indices),
            rles=None if self.rles is None else tuple(self.rles[index] for index in indices),
        )
