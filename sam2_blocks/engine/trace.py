"""A Chrome trace of a run, made from the runner's hooks; open it in Perfetto."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sam2_blocks.clock import shares
from sam2_blocks.engine.hookspecs import hookimpl
from sam2_blocks.errors import StepError
from sam2_blocks.files.atomic import write_text
from sam2_blocks.language.pipeline import Step


class TraceRecorder:
    """A plugin that records a span per step and micro-batch, of a repeated step of elements.

    Source: Chrome "Trace Event Format", complete (``X``) and instant (``i``) events.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._open: dict[tuple[int, str], float] = {}
        self._events: list[dict[str, Any]] = []

    @hookimpl
    def before_step(self, step: Step) -> None:
        """Note when the step starts."""
        self._open[threading.get_ident(), step.id] = self._now_us()

    @hookimpl
    def after_step(
        self, step: Step, item_ids: Sequence[str], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Record the span of the step."""
        thread = threading.get_ident()
        start = self._open.pop((thread, step.id))
        arguments = {"block": step.manifest.id, "items": list(item_ids), "succeeded": len(outputs)}
        self._add("X", step.id, thread, arguments, ts=start, dur=self._now_us() - start)

    @hookimpl
    def on_step_error(self, step: Step, item_id: str, error: StepError) -> None:
        """Mark the item that failed."""
        arguments = {"item": item_id, "error": str(error)}
        self._add("i", step.id, threading.get_ident(), arguments, ts=self._now_us(), s="t")

    @hookimpl
    def on_step_skip(self, step: Step, item_id: str, reason: str) -> None:
        """Mark the item that the step does not run for."""
        arguments = {"item": item_id, "skipped": reason}
        self._add("i", step.id, threading.get_ident(), arguments, ts=self._now_us(), s="t")

    def add_stage(self, name: str, begun: float, ended: float) -> None:
        """Record a stage of this thread, such as reading; a listener of a run's `Clock`."""
        ts, dur = ((seconds - self._started) * 1e6 for seconds in (begun, ended))
        thread = threading.get_ident()
        self._add("X", name, thread, {}, cat="stage", ts=ts, dur=dur - ts)

    def write(self, path: str | Path, seconds: Mapping[str, float] | None = None) -> None:
        """Write the trace; the file is whole or not there.

        Args:
            path: of the file.
            seconds: of each stage, to be written along.
        """
        content: dict[str, Any] = {"traceEvents": self._events, "displayTimeUnit": "ms"}
        if seconds is not None:
            content["otherData"] = {"seconds": seconds, "shares": shares(seconds)}
        write_text(Path(path), json.dumps(content))

    def _add(self, phase: str, name: str, thread: int, args: dict[str, Any], **more: Any) -> None:
        self._events.append(
            {
                "ph": phase,
                "name": name,
                "cat": "step",
                "pid": 1,
                "tid": thread,
                "args": args,
                **more,
            }
        )

    def _now_us(self) -> float:
        return (time.perf_counter() - self._started) * 1e6
