"""Ours with the encoder's linear layers in int8, which ``models calibrate`` measures.

It keeps nothing: what the user calibrated stays as it is.
"""

from __future__ import annotations

from benchmarks.peers import OursOpenVino
from benchmarks.scenes import PHOTOGRAPH
from benchmarks.weights import Weights
from sam2_blocks.executor.sam2.calibrate import measure_calibration
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.loading import load_model


class OursInt8(OursOpenVino):
    """Calibrated on photographs that are in no scene."""

    mode = "int8 + openvino"
    exact = False

    def _load(self, weights: Weights) -> Sam2Executor:
        strict = load_model(weights.name, device="cpu", seed=weights.seed)
        pictures = sorted(path for path in PHOTOGRAPH.parent.glob("*.jpg") if path != PHOTOGRAPH)
        model = load_model(
            weights.name,
            device="cpu",
            seed=weights.seed,
            dtype="int8",
            backend="openvino",
            calibration=measure_calibration(strict, pictures),
        )
        return Sam2Executor(model, cache_bytes=0)
