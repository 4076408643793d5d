"""What ``sam2-blocks doctor`` finds out about this machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version

import numpy as np

from sam2_blocks import __version__
from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.errors import Sam2BlocksError
from sam2_blocks.values import Image, PromptSet

PACKAGES = ("torch", "sam2", "supervision", "numpy", "pydantic", "pycocotools", "pillow")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    text: str
    ok: bool = True


def diagnose() -> Iterator[Finding]:
    """Check one thing after another; a failing check does not stop the next."""
    checks: dict[str, Callable[[], str]] = {
        "python": lambda: f"{platform.python_version()} on {platform.platform()}",
        "sam2-blocks": lambda: __version__,
        "packages": lambda: ", ".join(f"{name} {version(_owner(name))}" for name in PACKAGES),
        "sam2": lambda: f"the module comes from the distribution {_owner('sam2')!r}",
        "devices": _devices,
        "hydra": _hydra,
        "plugins": _plugins,
        "smoke test": _smoke_test,
    }
    for name, check in checks.items():
        try:
            yield Finding(name, check())
        except Exception as error:  # a report of what is broken must survive what is broken
            yield Finding(name, f"{type(error).__name__}: {error}", ok=False)


def _owner(module: str) -> str:
    owners = packages_distributions().get(module, [module])
    if len(set(owners)) > 1:
        raise Sam2BlocksError(
            f"several distributions own {module!r}: {', '.join(owners)}. Keep one."
        )
    return owners[0]


def _devices() -> str:
    from sam2_blocks.executor.device.found import describe_devices

    return ", ".join(describe_devices())


def _hydra() -> str:
    from hydra.core.global_hydra import GlobalHydra

    state = "initialised" if GlobalHydra.instance().is_initialized() else "not initialised"
    return f"hydra-core {version('hydra-core')}, global state {state}"


def _plugins() -> str:
    records = load_plugins().records
    broken = [f"{record.name}: {record.error}" for record in records if record.error]
    if broken:
        raise Sam2BlocksError("; ".join(broken))
    return ", ".join(f"{record.name} ({len(record.blocks)} blocks)" for record in records)


def _smoke_test() -> str:
    from sam2_blocks.executor import load

    started = time.perf_counter()
    executor = load("nano")
    loaded = time.perf_counter()
    picture = Image(np.full((240, 320, 3), 127, dtype=np.uint8))
    [embedding] = executor.embed([picture])
    embedded = time.perf_counter()
    [prediction] = executor.segment([(embedding, PromptSet.from_boxes([[80, 60, 240, 180]]))])
    finished = time.perf_counter()
    return (
        f"nano on {executor.spec.device}, {executor.spec.dtype}: load {loaded - started:.2f} s, "
        f"embed {embedded - loaded:.2f} s, one box {finished - embedded:.2f} s, "
        f"{len(prediction)} mask"
    )
