"""A Ray cluster: connected to or started, and how many workers it has room for."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sam2_blocks.errors import MissingExtraError, Sam2BlocksError, UsageError

STORE_BYTES = 2**27
"""Memory for objects of a cluster that we start; nothing of size goes through it."""

KNOCK_S = 10.0

NOT_WANTED = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_DASHBOARD": "1"}


def load_ray() -> Any:
    """Import Ray.

    Raises:
        MissingExtraError: if it is not installed.
    """
    for name, value in NOT_WANTED.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingExtraError(
            f"--on ray needs Ray ({error}): pip install 'sam2-blocks[ray]'"
        ) from error
    return ray


@contextmanager
def connect(address: str | None, workers: int) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine; one that is connected to is used.

    Args:
        address: of a cluster, such as ``ray://head:10001`` or ``auto``; without one, that of
            ``RAY_ADDRESS``, else a cluster of this machine alone, which ends with this.
        workers: for which a new cluster shall have room.

    Raises:
        Sam2BlocksError: if there is no such cluster.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    address = address or os.environ.get("RAY_ADDRESS")
    cpus = os.cpu_count() or 1
    own: dict[str, Any] = {"num_cpus": max(cpus, workers), "object_store_memory": STORE_BYTES}
    options: dict[str, Any] = {"address": address} if address else {"address": "local", **own}
    options |= {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        _knock(address or "")
        ray.init(include_dashboard=None if address else False, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise Sam2BlocksError(f"--address {address}: no Ray cluster answers: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """See that somebody listens at an address with a port; Ray would try for many minutes.

    Raises:
        OSError: if nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


def choose_gpus(asked: float | None, nodes: Sequence[Mapping[str, Any]]) -> float:
    """GPUs of each worker: as asked, else one where the cluster has any.

    Args:
        asked: None to look.
        nodes: as ``ray.nodes()`` describes them.

    Raises:
        UsageError: if GPUs are asked for that no node has.
    """
    most = max((_amounts(node).get("GPU", 0.0) for node in nodes), default=0.0)
    if asked is None:
        return 1.0 if most >= 1 else 0.0
    if asked > most:
        raise UsageError(
            f"--gpus-per-worker {asked:g}: no node of the Ray cluster has so many GPUs, the most "
            f"is {most:g}. Use --gpus-per-worker 0, or add a node."
        )
    return asked


def choose_cpus(workers: int, gpus: float, nodes: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """CPUs of each worker, so that as many as possible are at work at once, and how many are.

    Args:
        workers: that are wanted.
        gpus: of each.
        nodes: as ``ray.nodes()`` describes them.

    Returns:
        CPUs, which are also the threads, and the number of workers that there is room for.
    """
    amounts = [_amounts(node) for node in nodes]
    most = int(max((found.get("CPU", 0.0) for found in amounts), default=0.0))
    for cpus in range(max(most, 1), 0, -1):
        room = sum(_room(found, cpus, gpus) for found in amounts)
        if room >= workers or cpus == 1:
            return cpus, min(room, workers)
    raise AssertionError("one CPU is the least")


def _amounts(node: Mapping[str, Any]) -> Mapping[str, float]:
    return node.get("Resources", {}) if node.get("Alive") else {}


def _room(amounts: Mapping[str, float], cpus: int, gpus: float) -> int:
    by_cpu = int(amounts.get("CPU", 0.0) // cpus)
    return by_cpu if gpus == 0 else min(by_cpu, int(amounts.get("GPU", 0.0) // gpus))
