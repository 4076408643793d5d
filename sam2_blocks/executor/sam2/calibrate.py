"""Whether int8 pays for a model on a user's pictures: ranges, speed, and masks beside float32's.

Of the pictures every other one gives the ranges, and the rest, which int8 has not seen, are judged
by: each is prompted with boxes of what the model finds on it in float32.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sam2_blocks.errors import MissingExtraError, ModelError
from sam2_blocks.executor.backends import find_backend_problem
from sam2_blocks.executor.device.precision import has_fast_bfloat16
from sam2_blocks.executor.openvino.calibrations import Calibration, keep_calibration
from sam2_blocks.executor.sam2.encode import encode_batch
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.int8 import measure_ranges
from sam2_blocks.executor.sam2.loading import INT8, load_model
from sam2_blocks.executor.sam2.model import LoadedModel
from sam2_blocks.executor.sam2.preprocess import pictures_to_batch
from sam2_blocks.formats.images import read_image
from sam2_blocks.masks.rle import rle_area, rle_iou
from sam2_blocks.options import AutomaticSettings
from sam2_blocks.strategies.automatic import generate_masks
from sam2_blocks.values import Image, PromptSet, Rle

LEAST_PICTURES, MOST_PICTURES = 4, 40
BOXES = 20
"""Most boxes asked about on a picture."""

ROUNDS = 6
"""Least number of times that each way to compute is timed."""

FASTER = 0.97
"""Share of the processor time of what mode ``fast`` is else that int8 may take at most."""

EVERYTHING = AutomaticSettings(points_per_side=12, pred_iou_thresh=0, stability_score_thresh=0)

INCLUSIVE = np.array([0, 0, 1, 1], np.float32)
"""From the last pixel of a mask to the edge of its box."""

Load = Callable[..., LoadedModel]


@dataclass(frozen=True)
class Gate:
    """How near masks of int8 must be to those of float32 for int8 to be used.

    Half precision keeps as much in the benchmarks.

    Attributes:
        mean_iou: the least mean IoU.
        p1_iou: the least first percentile of IoU.
        flipped: the largest share of a picture's pixels that change sides, 0 to 1.
    """

    mean_iou: float = 0.95
    p1_iou: float = 0.8
    flipped: float = 5e-3


GATE = Gate()


@dataclass(frozen=True)
class Measured:
    """One way to compute the encoder, on pictures that no range is of.

    Attributes:
        name: of what it computes in, and what computes it.
        ms: median time of a picture.
        cpu_ms: of all cores together.
        mean_iou: of its masks with those of float32.
        p1_iou: first percentile of it.
        flipped: share of a picture's pixels that changed sides, on average.
    """

    name: str
    ms: float
    cpu_ms: float
    mean_iou: float
    p1_iou: float
    flipped: float


@dataclass(frozen=True)
class Outcome:
    """What `calibrate` found.

    Attributes:
        rows: float32, what mode ``fast`` is else, and int8.
        pictures: how many gave the ranges.
        held_out: how many it was measured on.
        masks: how many were compared.
        problems: why int8 should not be used; none if it should.
        path: of the file that is kept, if one is.
    """

    rows: tuple[Measured, ...]
    pictures: int
    held_out: int
    masks: int
    problems: tuple[str, ...]
    path: Path | None


def calibrate(
    model: str, pictures: Sequence[Path], *, input_px: int = 0, force: bool = False
) -> Outcome:
    """Measure int8 for a model, and keep what it needs if it is faster and its masks are near.

    Args:
        model: as `load` takes it.
        pictures: of the sort that the model shall see; some are enough.
        input_px: side of the square it sees; see `load`.
        force: keep it whatever was found.

    Returns:
        Times and masks of float32, of mode ``fast`` and of int8, and whether int8 is kept.

    Raises:
        ModelError: if there are too few pictures, the model cannot be loaded, or what is kept
            cannot be written.
        MissingExtraError: if OpenVINO is not installed, or too old.
    """
    problem = find_backend_problem("openvino")
    if problem:
        raise MissingExtraError(problem)
    seen, held_out = split_pictures(pictures)
    load = partial(load_model, model, device="cpu", input_px=input_px)
    strict = load(mode="strict", backend="torch")
    calibration = measure_calibration(strict, seen)
    judge = Judge(strict, held_out)
    rows = judge.measure(_ways(load, strict, calibration))
    problems = find_problems(rows[-1], rows[-2])
    path = None
    if force or not problems:
        figures = {name: value for name, value in asdict(rows[-1]).items() if name != "name"}
        path = _keep(replace(calibration, figures=figures, forced=bool(problems)))
    return Outcome(tuple(rows), len(seen), len(held_out), judge.masks, problems, path)


def measure_calibration(strict: LoadedModel, pictures: Sequence[Path]) -> Calibration:
    """Measure the ranges of what the linear layers of the encoder read.

    Args:
        strict: the network in float32, computed by torch.
        pictures: that it reads.
    """
    batches = (_batch_of(strict, read_image(path)) for path in pictures)
    ranges = measure_ranges(strict.network.image_encoder, strict.encode_frame, batches)
    return Calibration(strict.weights, ranges, len(pictures), {})


def split_pictures(pictures: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Take at most `MOST_PICTURES` evenly from all, and hold every other one out.

    Args:
        pictures: in any order that mixes what is in them.

    Returns:
        The pictures to measure ranges on, and those to compare masks on.

    Raises:
        ModelError: if there are too few.
    """
    if len(pictures) < LEAST_PICTURES:
        raise ModelError(
            f"to calibrate wants at least {LEAST_PICTURES} pictures, better 20 or more, got "
            f"{len(pictures)}."
        )
    count = min(len(pictures), MOST_PICTURES)
    taken = [pictures[place * len(pictures) // count] for place in range(count)]
    return taken[::2], taken[1::2]


def find_problems(int8: Measured, otherwise: Measured) -> tuple[str, ...]:
    """Say why int8 is not worth it.

    Args:
        int8: as it was measured.
        otherwise: the same of what mode ``fast`` is without it.

    Returns:
        One sentence a reason; none if it is worth it.
    """
    problems = []
    if int8.cpu_ms > FASTER * otherwise.cpu_ms:
        problems.append(
            f"it is not faster than {otherwise.name}: {int8.cpu_ms:.0f} ms of processor time a "
            f"picture against {otherwise.cpu_ms:.0f}"
        )
    if int8.mean_iou < GATE.mean_iou:
        problems.append(f"mean IoU {int8.mean_iou:.3f}, wanted {GATE.mean_iou} or more")
    if int8.p1_iou < GATE.p1_iou:
        problems.append(f"first percentile of IoU {int8.p1_iou:.3f}, wanted {GATE.p1_iou} or more")
    if int8.flipped > GATE.flipped:
        problems.append(f"{int8.flipped:.2%} of pixels flipped, wanted {GATE.flipped:.2%} or less")
    return tuple(problems)


class Judge:
    """Prompts on held-out pictures, and the masks of float32 to compare with.

    Args:
        strict: the model in float32.
        held_out: the pictures.
    """

    def __init__(self, strict: LoadedModel, held_out: Sequence[Path]) -> None:
        self._pictures = [read_image(path) for path in held_out]
        executor = Sam2Executor(strict, cache_bytes=0)
        self._prompts = [_boxes_on(executor, picture) for picture in self._pictures]
        self._truth = self._masks_of(executor)
        self.masks = sum(len(masks) for masks in self._truth)
        if not self.masks:
            raise ModelError("the model finds nothing on the pictures that it is judged by.")

    def measure(self, ways: Sequence[tuple[str, LoadedModel]]) -> list[Measured]:
        """Time all in turn, so that a disturbance hits each of them, and compare their masks."""
        times: list[list[tuple[float, float]]] = [[] for _ in ways]
        for turn in range(-1, max(ROUNDS, len(self._pictures))):
            picture = self._pictures[turn % len(self._pictures)]
            for (_, model), found in zip(ways, times, strict=True):
                took = _time(model, picture)
                if turn >= 0:  # the first of each is a warm-up
                    found.append(took)
        return [
            self._compare(name, model, found)
            for (name, model), found in zip(ways, times, strict=True)
        ]

    def _compare(
        self, name: str, model: LoadedModel, times: Sequence[tuple[float, float]]
    ) -> Measured:
        masks = self._masks_of(Sam2Executor(model, cache_bytes=0))
        pairs = [
            pair
            for ours, theirs in zip(masks, self._truth, strict=True)
            for pair in zip(ours, theirs, strict=True)
        ]
        figures = np.array([_iou_and_flipped(*pair) for pair in pairs])
        ms, cpu_ms = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
        return Measured(
            name,
            ms,
            cpu_ms,
            mean_iou=float(figures[:, 0].mean()),
            p1_iou=float(np.percentile(figures[:, 0], 1)),
            flipped=float(figures[:, 1].mean()),
        )

    def _masks_of(self, executor: Sam2Executor) -> list[tuple[Rle, ...]]:
        found = []
        for picture, prompts in zip(self._pictures, self._prompts, strict=True):
            [embedding] = executor.embed([picture])
            [prediction] = executor.segment([(embedding, prompts)])
            found.append(prediction.rles)
        return found


def _ways(
    load: Load, strict: LoadedModel, calibration: Calibration
) -> list[tuple[str, LoadedModel]]:
    """Float32, what mode ``fast`` is without int8, and int8."""
    half = "bfloat16" if has_fast_bfloat16(torch.device("cpu")) else "float32"
    return [
        ("float32, torch", strict),
        (f"{half}, openvino", load(mode="fast", dtype=half, backend="openvino")),
        ("int8, openvino", load(dtype=INT8, backend="openvino", calibration=calibration)),
    ]


def _boxes_on(executor: Sam2Executor, picture: Image) -> PromptSet:
    """Boxes of what the model is surest of, without prompts."""
    [embedding] = executor.embed([picture])
    found = generate_masks(executor, embedding, EVERYTHING)
    sureness = found.prediction.iou_prediction * np.nan_to_num(found.stability_score)
    surest = found.select(np.argsort(-sureness, kind="stable")[:BOXES]).prediction
    boxes = [
        box for box, rle in zip(surest.mask_box_xyxy, surest.rles, strict=True) if rle_area(rle)
    ]
    return PromptSet.from_boxes(np.reshape(boxes, (-1, 4)).astype(np.float32) + INCLUSIVE)


def _batch_of(model: LoadedModel, picture: Image) -> torch.Tensor:
    return pictures_to_batch([picture.pixels], model.image_size, model.device)


def _time(model: LoadedModel, picture: Image) -> tuple[float, float]:
    """Seconds that the encoder takes, and those of all cores."""
    batch = _batch_of(model, picture)
    wall, cpu = time.perf_counter(), time.process_time()
    encode_batch(model, batch)
    return time.perf_counter() - wall, time.process_time() - cpu


def _iou_and_flipped(first: Rle, second: Rle) -> tuple[float, float]:
    """IoU of two masks of one picture, and the share of its pixels on which they differ."""
    iou, areas = rle_iou(first, second), rle_area(first) + rle_area(second)
    height, width = first.size
    return iou, areas * (1 - iou) / (1 + iou) / (height * width)


def _keep(calibration: Calibration) -> Path:
    try:
        return keep_calibration(calibration)
    except OSError as error:
        raise ModelError(
            f"the calibration cannot be kept: {error}. Free space there, make it writable, or let "
            "SAM2_BLOCKS_CACHE name another folder."
        ) from error
