"""Whole runs on Ray: workers run shards, and who is lost is replaced.

Ray starts processes and says when one is gone, no more: each shard is the run that ``--shard i/n``
is, with the same parts and the same manifest, and a lost worker's goes on as ``--resume`` does.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sam2_blocks.engine.places import Shard
from sam2_blocks.engine.plugins import Plugins, load_plugins
from sam2_blocks.engine.records import ErrorRecord
from sam2_blocks.errors import Sam2BlocksError, UsageError
from sam2_blocks.hosts.ray.cluster import choose_cpus, choose_gpus, connect, load_ray
from sam2_blocks.hosts.ray.worker import Beat, Job, Worker, start_run
from sam2_blocks.runs.shards import read_manifests
from sam2_blocks.runs.sources.lists import STDIN
from sam2_blocks.runs.stores import Store, open_store

STOPPING_S = 60.0
"""How long workers have to finish what they are at, before they are ended."""

MOST_LOST = 10
"""Workers that one shard may lose in a row, without a result in between."""


@dataclass(frozen=True)
class RayOptions:
    """Where and how wide a run is.

    Attributes:
        address: of the cluster; a new one on this machine if there is none and ``RAY_ADDRESS`` is
            not set.
        workers: processes, and shards of a new run.
        gpus_per_worker: 0 or 1; None is 1 where the cluster has GPUs.
    """

    address: str | None = None
    workers: int = 1
    gpus_per_worker: float | None = None


@dataclass
class _Task:
    """A shard that a worker is at."""

    worker: Any
    shard: Shard
    beats: Any
    lost: int
    process: tuple[int, str] = (0, "")


class RayRun(Iterator[Beat]):
    """A run on its way; made by `run_on_ray`, used in a ``with`` statement.

    Attributes:
        total: number of items, those of an earlier run included; None if nobody knows.
        notes: what is to be told to people.
    """

    def __init__(self, job: Job, options: RayOptions, notes: Sequence[str], *, resume: bool):
        self.total = job.total
        self.notes = list(notes)
        self._job = job
        self._options = options
        self._resume = resume
        self._store = open_store(job.out)
        self._open = ExitStack()
        self._ray: Any = None
        self._tasks: list[_Task] = []
        self._waiting: deque[tuple[Shard, bool, int]] = deque()
        self._before: dict[Shard, int] = {}
        self._done: dict[Shard, int] = {}
        self._seconds: Counter[str] = Counter()
        self._errors: dict[Shard, list[ErrorRecord]] = {}
        self._actor_options: Mapping[str, Any] = {}
        self._most = 0

    def __enter__(self) -> RayRun:
        with ExitStack() as stack:
            shards = _shards(self._store, self._options.workers, resume=self._resume)
            self._ray = stack.enter_context(connect(self._options.address, self._options.workers))
            self._size_workers(len(shards))
            stack.callback(self._store.delete, self._job.proof)
            self._store.write(self._job.proof, b"")
            self._waiting.extend((shard, self._resume, 0) for shard in shards)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        with self._open:
            self._stop()

    def __next__(self) -> Beat:
        """Wait until a worker tells how far it is.

        Raises:
            UsageError: if a worker does not see the inputs or the folder, or another run writes.
            Sam2BlocksError: if a shard cannot go on.
        """
        while True:
            self._employ()
            if not self._tasks:
                raise StopIteration
            beat = self._hear()
            if beat is not None:
                return beat

    @property
    def workers(self) -> str:
        """How many there are, for people."""
        return "1 worker" if self._most == 1 else f"{self._most} workers"

    @property
    def errors(self) -> list[ErrorRecord]:
        """Why items failed so far."""
        return [error for found in self._errors.values() for error in found]

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by stage, of all workers whose shards came to an end."""
        return dict(self._seconds)

    @property
    def done_before(self) -> int:
        """Number of items that an earlier run finished, as far as shards have begun."""
        return sum(self._before.values())

    @property
    def done(self) -> int:
        """Number of items that are finished, those of an earlier run included."""
        return sum(self._done.values())

    def _size_workers(self, shards: int) -> None:
        nodes = self._ray.nodes()
        wanted = min(self._options.workers, shards)
        gpus = choose_gpus(self._options.gpus_per_worker, nodes)
        cpus, room = choose_cpus(wanted, gpus, nodes)
        if room < wanted:
            self.notes.append(
                f"the Ray cluster has room for {room} of {wanted} workers now; the others start "
                "when there is more"
            )
        self._most = wanted
        self._job = replace(self._job, gpus=gpus)
        # Two threads: one works, the other is told to stop.
        self._actor_options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "max_restarts": 0,
            "max_concurrency": 2,
        }

    def _employ(self, worker: Any = None) -> None:
        """Give the shards that wait to as many workers as there may be."""
        while self._waiting and len(self._tasks) < self._most:
            shard, resume, lost = self._waiting.popleft()
            if worker is None:
                actor = self._ray.remote(Worker).options(**self._actor_options)
                worker = actor.remote(self._job)
            text = f"{shard.number}/{shard.count}"
            beats = worker.run.options(num_returns="streaming").remote(text, resume, lost == 0)
            self._tasks.append(_Task(worker, shard, beats, lost))
            worker = None

    def _hear(self, timeout_s: float | None = None) -> Beat | None:
        """What the next worker says that says something; None if none does, ended or is lost."""
        beats = [task.beats for task in self._tasks]
        ready, _ = self._ray.wait(beats, num_returns=1, timeout=timeout_s)
        if not ready:
            return None
        task = next(task for task in self._tasks if task.beats is ready[0])
        try:
            beat: Beat = self._ray.get(next(task.beats))
        except StopIteration:
            self._tasks.remove(task)
            self._employ(task.worker)
            return None
        except self._ray.exceptions.RayError as error:
            self._tasks.remove(task)
            self._replace(task, error)
            return None
        return self._take(task, beat)

    def _take(self, task: _Task, beat: Beat) -> Beat:
        shard = task.shard
        if beat.begun is not None:  # for a lost worker's, what it told and did not write is gone
            task.process = beat.process
            self._before.setdefault(shard, beat.begun)
            self._done[shard], self._errors[shard] = beat.begun, []
        if beat.items:
            task.lost = 0
            self._done[shard] += beat.items
        self._errors.setdefault(shard, []).extend(beat.errors)
        self._seconds.update(beat.seconds)
        if beat.error:
            message = f"shard {task.shard.name}, {beat.error}"
            raise (UsageError if beat.wrong else Sam2BlocksError)(message)
        return beat

    def _replace(self, task: _Task, error: Exception) -> None:
        """Let another worker go on with the shard of one that is lost."""
        if isinstance(error, self._ray.exceptions.RayTaskError):
            raise Sam2BlocksError(f"shard {task.shard.name}: {error}") from error
        if task.lost + 1 >= MOST_LOST:
            raise Sam2BlocksError(
                f"shard {task.shard.name}: {MOST_LOST} workers were lost one after another before "
                f"any result; the last: {error}"
            ) from error
        process, machine = task.process
        who = f"worker {process} on {machine}" if process else "a worker that had not begun"
        self.notes.append(f"shard {task.shard.name}: lost {who}; another one goes on")
        self._waiting.appendleft((task.shard, True, task.lost + 1))

    def _stop(self) -> None:
        """Let workers write what they have; who does not come to an end is ended."""
        until = time.monotonic() + STOPPING_S
        try:
            for task in self._tasks:
                task.worker.stop.remote()
            self._waiting.clear()
            while self._tasks and time.monotonic() < until:
                with suppress(Sam2BlocksError):  # what ended the run is known
                    self._hear(1.0)
        finally:
            for task in self._tasks:
                self._ray.kill(task.worker)
            self._tasks.clear()


def run_on_ray(
    pipeline: str | Path | Mapping[str, Any],
    inputs: Sequence[str],
    out: str | Path,
    options: RayOptions,
    *,
    resume: bool = False,
    plugins: Plugins | None = None,
    strict_plugins: bool = False,
    **settings: Any,
) -> RayRun:
    """Run a pipeline on a Ray cluster, in shards; the parts are those of ``--shard i/n``.

    Args:
        pipeline: a YAML file, or the same as plain data.
        inputs: texts that name inputs which every worker sees: files of a folder that machines
            share, or URLs. ``-`` is read here and sent along.
        out: folder or URL that every worker sees.
        options: where, and how many workers.
        resume: skip what earlier runs finished; shards are as many as those had.
        plugins: where blocks come from, on this machine; all that are installed if not given.
        strict_plugins: whether a broken plugin is an error for workers.
        settings: further arguments of `sam2_blocks.run_pipeline`, such as ``batch_size``.

    Returns:
        The run; in a ``with`` statement, iterate over it for what workers tell.

    Raises:
        MissingExtraError: if Ray or pyarrow is not installed; nothing is loaded then.
        PipelineError: if the pipeline is wrong.
        UsageError: if inputs are missing, or results cannot go there.
    """
    load_ray()
    job = Job(
        pipeline=dict(pipeline) if isinstance(pipeline, Mapping) else str(pipeline),
        inputs=tuple(map(str, inputs)),
        out=str(out),
        folder=os.getcwd(),
        proof=f".ray-{secrets.token_hex(8)}",
        given=sys.stdin.buffer.read() if STDIN in inputs else None,
        settings=settings,
        strict_plugins=strict_plugins,
    )
    tried = start_run(job, plugins or load_plugins(strict=strict_plugins))
    return RayRun(replace(job, total=tried.total), options, tried.notes, resume=resume)


def _shards(store: Store, workers: int, *, resume: bool) -> list[Shard]:
    """Those of the earlier run where there is one to go on with, else one a worker."""
    earlier = read_manifests(store) if resume else {}
    count = next((shard.count for shard in earlier), workers)
    return [Shard(number, count) for number in range(1, count + 1)]
