"""What a run says of itself: figures of its steps, printed and kept as lines of JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SAY_EVERY_S = 10


def figures_of(true: Tensor, said: Tensor, present: Tensor) -> dict[str, Tensor]:
    """Average over a step what frames say, all (T, N): IoU, "seen" said, and whether it is."""

    def mean(values: Tensor, where: Tensor) -> Tensor:
        return (values * where).sum() / where.sum()  # NaN where there are none

    return {
        "iou": mean(true.detach(), present),
        "last": mean(true[-1].detach(), present[-1]),
        "seen": mean(said.float(), present),
        "lost": mean((~said).float(), ~present),
    }


class Log:
    """Says every few seconds how a run goes: a line to read, and one of JSON in a file.

    Args:
        path: of the file; lines are added.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steps: list[dict[str, Tensor]] = []
        self._said = time.monotonic()
        self._clips = 0

    def add(
        self, figures: dict[str, Tensor], left_s: float, *, step: int, tracked: int, clips: int
    ) -> None:
        """Count a step; say where the run is if it is time.

        Args:
            figures: of the step, on any device; they are read when they are said.
            left_s: seconds to the end of the run.
            step: how many there were.
            tracked: objects times frames so far.
            clips: made so far.
        """
        self._steps.append(figures)
        now = time.monotonic()
        if now - self._said < SAY_EVERY_S and step != 3 and left_s > 0:
            return
        facts: dict[str, Any] = {"step": step, "objects x frames": tracked}
        for name in self._steps[0]:
            mean = torch.stack([s[name] for s in self._steps]).nanmean().item()
            facts[name] = round(mean, 4) if mean == mean else None
        took = time.monotonic() - self._said
        facts["clips"], facts["clips/s"] = clips, round((clips - self._clips) / took, 2)
        facts["steps/s"] = round(len(self._steps) / took, 2)
        facts["s left"] = round(left_s, 1)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            facts["GiB"] = round(torch.cuda.max_memory_reserved() / 2**30, 1)
        self.write(facts)
        self._steps, self._said, self._clips = [], time.monotonic(), clips

    def write(self, facts: dict[str, Any]) -> None:
        """Say something else."""
        print(" ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
        with self._path.open("a") as file:
            file.write(json.dumps(facts) + "\n")
