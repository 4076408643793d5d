"""One process of a run on Ray: runs shards, and tells how far it is; no pixels travel."""

from __future__ import annotations

import io
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam2_blocks.engine.places import Shard
from sam2_blocks.engine.plugins import Plugins, load_plugins
from sam2_blocks.engine.records import ErrorRecord
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import DocumentError, Sam2BlocksError, UsageError, message_of
from sam2_blocks.runs.run import Run, run_pipeline
from sam2_blocks.runs.stores import open_store

BEAT_S = 0.5
"""How often a worker tells how far it is."""


@dataclass(frozen=True)
class Job:
    """What is run, as it was asked for.

    Attributes:
        pipeline: a YAML file, or the same as plain data.
        inputs: texts that name the inputs.
        out: folder or URL.
        folder: that relative paths start from, where a worker has it.
        proof: name of a file in ``out``: who does not see it, sees another folder.
        total: number of items, if it is known.
        given: what standard input said, if an input is ``-``.
        settings: further arguments of `run_pipeline`.
        strict_plugins: whether a broken plugin is an error.
        gpus: that the worker has.
    """

    pipeline: str | Mapping[str, Any]
    inputs: tuple[str, ...]
    out: str
    folder: str
    proof: str = ""
    total: int | None = None
    given: bytes | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    strict_plugins: bool = False
    gpus: float = 0.0


@dataclass(frozen=True)
class Beat:
    """What a worker tells from time to time.

    Attributes:
        begun: number of items of the shard that an earlier run finished, in the first beat.
        process: id of the worker's process, and its machine, in the first beat.
        items: number of items since the last beat.
        errors: of them.
        error: what ended the shard before its time.
        wrong: whether that is a mistake in what was asked for.
        complete: whether the shard is.
        seconds: of each stage of the shard, in the last beat.
    """

    begun: int | None = None
    process: tuple[int, str] = (0, "")
    items: int = 0
    errors: tuple[ErrorRecord, ...] = ()
    error: str = ""
    wrong: bool = False
    complete: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)


class Worker:
    """Runs shards of a job, one after the other; an actor of two threads, one to be stopped by."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stopped = threading.Event()
        self._loaded: tuple[Plugins, Resources] | None = None

    def stop(self) -> None:
        """End the shard soon; what is finished is written."""
        self._stopped.set()

    def run(self, shard: str, resume: bool, first: bool = True) -> Iterator[Beat]:
        """Run one shard.

        Args:
            shard: such as ``3/16``.
            resume: go on with what is there.
            first: whether no worker was lost over it; what it set aside is not retried else.
        """
        retry = {} if first else {"retry_set_aside": False}
        try:
            with self._start(shard, resume=resume, **retry) as run:
                here = os.getpid(), socket.gethostname()
                yield Beat(begun=run.done_before, process=here)
                yield from self._work(run)
        except (Sam2BlocksError, OSError) as error:
            wrong = isinstance(error, UsageError | DocumentError)
            yield Beat(error=f"{socket.gethostname()}: {message_of(error)}", wrong=wrong)
        else:
            complete = not self._stopped.is_set()
            yield Beat(errors=tuple(run.errors), complete=complete, seconds=run.seconds)

    def _work(self, run: Run) -> Iterator[Beat]:
        count, since = 0, time.monotonic()
        for _ in run:
            count += 1
            if self._stopped.is_set():
                break
            if time.monotonic() - since >= BEAT_S:
                yield self._beat(run, count)
                count, since = 0, time.monotonic()
        yield self._beat(run, count)

    def _beat(self, run: Run, count: int) -> Beat:
        """Errors are told once; a run that lives long would hold them all."""
        errors = tuple(run.errors)
        del run.errors[: len(errors)]  # a thread of the run may add some meanwhile
        return Beat(items=count, errors=errors)

    def _start(self, shard: str, **more: Any) -> Run:
        job = self._job
        _enter(job)
        if self._loaded is None:
            if not job.gpus:
                os.environ["CUDA_VISIBLE_DEVICES"] = ""
            plugins = load_plugins(strict=job.strict_plugins)
            self._loaded = plugins, plugins.resources(pictures_pass=True)
        plugins, resources = self._loaded
        try:
            run = start_run(job, plugins, shard=shard, resources=resources, **more)
        except UsageError as error:  # all was found where the run was asked for
            raise UsageError(f"{error} {_unseen('what is named there')}") from error
        _check_total(run, Shard.parse(shard), job.total)
        return run


def start_run(job: Job, plugins: Plugins, **more: Any) -> Run:
    """Make the run of a job; nothing is begun, but all is checked that can be before."""
    if job.given is not None:
        sys.stdin = io.TextIOWrapper(io.BytesIO(job.given))
    options = {**job.settings, **more}
    return run_pipeline(
        job.pipeline, list(job.inputs), out=job.out, plugins=plugins, form="parquet", **options
    )


def _enter(job: Job) -> None:
    """Go to the folder that paths start from, and see whether all is there.

    Raises:
        UsageError: if not.
    """
    if os.path.isdir(job.folder):
        os.chdir(job.folder)
    if isinstance(job.pipeline, str) and not Path(job.pipeline).is_file():
        raise UsageError(_unseen(f"the pipeline {job.pipeline!r}"))
    if job.proof and open_store(job.out).read(job.proof) is None:
        raise UsageError(_unseen(f"the folder {job.out!r} of --out"))


def _check_total(run: Run, shard: Shard, total: int | None) -> None:
    """Refuse to run on other items than those that were counted where the run was asked for."""
    expected = None if total is None else len(range(shard.number - 1, total, shard.count))
    if None not in (run.total, expected) and run.total != expected:
        raise UsageError(
            f"there are {run.total} inputs of the shard {shard.name}, not {expected}. "
            + _unseen("the same inputs")
        )


def _unseen(what: str) -> str:
    return (
        f"A worker there does not see {what}: put it into a folder that all machines share, or "
        "give a URL such as s3://…"
    )
