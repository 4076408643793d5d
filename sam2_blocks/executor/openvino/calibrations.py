"""What a network's linear layers read on a user's pictures, kept for int8, one file a network.

It is made by ``sam2-blocks models calibrate`` and belongs to one set of weights at one size; what
does not is not found. No torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sam2_blocks.executor.weights.download import cache_dir
from sam2_blocks.files.atomic import write_bytes

LOGGER = logging.getLogger(__name__)
VERSION = 1
"""Of the file, and of what is done with its ranges."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Calibration:
    """What int8 needs to know of a network, and how it was found.

    Attributes:
        weights: architecture, weights and size; see `LoadedModel.weights`.
        ranges: least and greatest value that each linear layer of the encoder read, by name.
        pictures: how many they were measured on.
        figures: what was measured on other pictures, by name; for people.
        forced: whether it was kept although those figures fail.
    """

    weights: str
    ranges: Mapping[str, tuple[float, float]]
    pictures: int
    figures: Mapping[str, float]
    forced: bool = False

    @property
    def key(self) -> str:
        """Short name of the ranges; equal ones compute the same."""
        text = f"v{VERSION} {self.weights} {sorted(self.ranges.items())}"
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def calibration_path(weights: str) -> Path:
    """Return where the calibration of these weights is, or would be."""
    name = hashlib.blake2b(f"v{VERSION}, {weights}".encode(), digest_size=16).hexdigest()
    return cache_dir() / "calibrated" / f"{name}.json"


def find_calibration(weights: str) -> Calibration | None:
    """Return the calibration of these weights, or None if there is none that can be read."""
    path = calibration_path(weights)
    try:
        found = TypeAdapter(Calibration).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        damaged = isinstance(error, ValidationError)
        reason = "its content is not what was written" if damaged else error
        LOGGER.warning("the calibration %s cannot be read: %s. Calibrate anew.", path, reason)
        return None
    return found if found.weights == weights else None


def keep_calibration(calibration: Calibration) -> Path:
    """Write a calibration in the place of an older one.

    Raises:
        OSError: if it cannot be written.
    """
    path = calibration_path(calibration.weights)
    text = json.dumps(asdict(calibration), indent=1)
    return write_bytes(path, text.encode())
