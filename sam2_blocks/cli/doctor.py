"""What ``sam2-blocks doctor`` finds out about this machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sam2_blocks import __version__
from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.errors import MissingExtraError, Sam2BlocksError
from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.values import Image, PromptSet

PACKAGES = ("torch", "sam2", "supervision", "numpy", "pydantic", "pycocotools", "pillow")
PREFIXES = (
    "SAM2_",
    "DISABLE_SAM2_",
    "WORKFLOWS_PLUGINS",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)
SECRET = "SAM2_BLOCKS_API_KEY"
HALF = 0.5
"""Share of the drawn disc that the mask must match; a working `nano` has 0.9."""


@dataclass(frozen=True)
class Finding:
    """One line of the report; only what is ``bad`` keeps things from working."""

    name: str
    text: str
    state: Literal["ok", "warning", "bad"] = "ok"


class Notice(str):
    """What a check says of something that works, but wants a look: a warning."""


def diagnose() -> Iterator[Finding]:
    """Check one thing after another; a failing check does not stop the next."""
    checks: dict[str, Callable[[], str]] = {
        "python": lambda: f"{platform.python_version()} on {platform.platform()}",
        "sam2-blocks": lambda: __version__,
        "packages": lambda: ", ".join(f"{name} {_version_of(name)}" for name in PACKAGES),
        "sam2": _sam2,
        "devices": _devices,
        "acceleration": _acceleration,
        "backends": _backends,
        "hydra": _hydra,
        "environment": _environment,
        "models": _models,
        "plugins": _plugins,
        "a picture": _segment_a_picture,
    }
    for name, check in checks.items():
        try:
            text = check()
            yield Finding(name, text, "warning" if isinstance(text, Notice) else "ok")
        except Exception as error:  # a report of what is broken must survive what is broken
            yield Finding(name, f"{type(error).__name__}: {error}", "bad")


def _owners(module: str) -> list[str]:
    return sorted(set(packages_distributions().get(module, [module])))


def _version_of(module: str) -> str:
    return " and ".join(version(owner) for owner in _owners(module))


def _sam2() -> str:
    owners = _owners("sam2")
    if len(owners) == 1:
        return f"the module comes from the distribution {owners[0]!r}"
    return Notice(
        f"{' and '.join(owners)} both bring the module 'sam2', and the one installed last is "
        "there. All is well as long as the picture below is segmented. If it is not: "
        "pip install --force-reinstall --no-deps sam2"
    )


def _devices() -> str:
    from sam2_blocks.executor.device.found import describe_devices

    return ", ".join(describe_devices())


def _acceleration() -> str:
    from sam2_blocks.executor.device.found import suggest_installation

    suggestion = suggest_installation()
    return Notice(suggestion) if suggestion else "torch uses what is here"


def _backends() -> str:
    """Say what computes on a CPU; what `auto` can do without is no reason to fail."""
    from sam2_blocks.executor.backends import has_openvino
    from sam2_blocks.executor.openvino.library import describe_openvino

    if not has_openvino():
        return "torch; OpenVINO is faster on a CPU: pip install 'sam2-blocks[openvino]'"
    try:
        return f"torch, openvino ({describe_openvino()})"
    except (MissingExtraError, RuntimeError, OSError) as error:
        return Notice(f"torch. OpenVINO cannot be used: {error}")


def _hydra() -> str:
    from hydra.core.global_hydra import GlobalHydra

    state = "initialised" if GlobalHydra.instance().is_initialized() else "not initialised"
    return f"hydra-core {version('hydra-core')}, global state {state}"


def _environment() -> str:
    found = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}
    shown = [f"{name}={'…' if name == SECRET else found[name]}" for name in sorted(found)]
    return ", ".join(shown) or "no variable of ours is set"


def _models() -> str:
    from sam2_blocks.executor.weights.download import where_weights_are

    places = {name: where_weights_are(model) for name, model in load_plugins().models.items()}
    here = [f"{name}: {where}" for name, where in places.items() if where != "to download"]
    return "; ".join(here)


def _plugins() -> str:
    records = load_plugins().records
    broken = [f"{record.name}: {record.error}" for record in records if record.error]
    if broken:
        raise Sam2BlocksError("; ".join(broken))
    return ", ".join(f"{record.name} ({len(record.blocks)} blocks)" for record in records)


def _segment_a_picture() -> str:
    from sam2_blocks.executor import load

    disc, picture = _drawn_disc()
    started = time.perf_counter()
    executor = load("nano")
    loaded = time.perf_counter()
    [embedding] = executor.embed([picture])
    embedded = time.perf_counter()
    [prediction] = executor.segment([(embedding, PromptSet.from_boxes([[98, 58, 222, 182]]))])
    finished = time.perf_counter()
    mask = rle_to_mask(prediction.rles[0])
    overlap = (mask & disc).sum() / (mask | disc).sum()
    times = (
        f"nano on {executor.spec.device}, {executor.spec.dtype}: load {loaded - started:.2f} s, "
        f"embed {embedded - loaded:.2f} s, one box {finished - embedded:.2f} s"
    )
    if overlap < HALF:
        raise Sam2BlocksError(f"{times}, but its mask of a disc is wrong (IoU {overlap:.2f})")
    return f"{times}; a disc is found with IoU {overlap:.2f}"


def _drawn_disc() -> tuple[NDArray[np.bool_], Image]:
    """A light disc on a dark ground, as a mask and as a picture."""
    y, x = np.mgrid[:240, :320]
    disc = (x - 160) ** 2 + (y - 120) ** 2 < 60**2
    return disc, Image(np.where(disc[..., None], (230, 180, 60), (40, 60, 90)).astype(np.uint8))
