"""The service under wrong requests, on the loopback address of this machine only.

    python -m benchmarks.service_fuzz [--requests 10000] [--model nano] [--seed 0] [--stops 20]

Half of the requests are made by schemathesis from the OpenAPI page; the others are valid ones,
most of them spoilt by hand (`tests/hosts/fuzzing.py`), from several clients at once, and among them
pictures made to be slow or large (`tests/service/hostile.py`). They go to ``sam2-blocks serve`` in
a process of its own, which a client with valid requests uses at the same time. Answered in
``benchmarks/results/service_fuzz.json``: how often came each status, how long did the valid client
wait beside its usual time, how much memory did the server and its decoders take together, is it
alive afterwards, does it answer as it did before? And, under the same hostile load, time after
time: how long after SIGTERM does the process end?
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import Any

import schemathesis

from benchmarks.service_load import Client, Server, make_body
from sam2_blocks.hosts.http.server import GRACE_S
from tests.hosts.fuzzing import Fuzzed, check_openapi, mutated_requests
from tests.service.hostile import hostile_files

RESULTS = Path(__file__).parent / "results" / "service_fuzz.json"
CLIENTS = 4
TIMEOUT_S = 120
DEADLINE_S = 10.0
STOP_DEADLINE_S = 5.0
HOSTILE_EVERY = 50
USUAL = 200
PAUSE_S = 0.05


class Tally:
    """Statuses of all answers, and the first requests that failed; shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.statuses: Counter[str] = Counter()
        self.failed: list[str] = []

    def count(self, outcome: int | Exception, request: str) -> None:
        """Count an answer, or the error that came instead of one."""
        is_status = isinstance(outcome, int)
        with self._lock:
            self.statuses[str(outcome) if is_status else type(outcome).__name__] += 1
            if str(outcome) not in EXPECTED and len(self.failed) < 20:
                self.failed.append(request)


def send_from_openapi(port: int, requests: int, tally: Tally) -> None:
    """Send what schemathesis makes of the page: about so many requests, half of them valid."""
    page = get_json(port, "/openapi.json")
    with_body = sum("requestBody" in route.get("post", {}) for route in page["paths"].values())

    def send(case: schemathesis.Case) -> None:
        try:
            response = case.call(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S)
            tally.count(response.status_code, case.as_curl_command())
        except OSError as error:
            tally.count(error, case.as_curl_command())

    for mode in schemathesis.GenerationMode:
        examples = requests // 2 // with_body
        check_openapi(page, send, mode=mode, examples=examples, derandomize=False)


def hostile_requests(seed: int) -> Iterator[Fuzzed]:
    """Pictures made to be slow or large, in requests for all that can be made of them, endless."""
    rng, files = random.Random(seed), written_once()
    while True:
        content, wanted = rng.choice(files), rng.choice(["json", "rle", "binary"])
        image = {"type": "base64", "value": base64.b64encode(content).decode()}
        box = {"x": rng.uniform(0, 8000), "y": rng.uniform(0, 4000), "width": 500, "height": 400}
        body = {"image": image, "format": wanted, "prompts": [{"box": box}] * rng.choice([1, 3])}
        yield Fuzzed("/sam2/segment_image", "application/json", json.dumps(body).encode())


@cache
def written_once() -> list[bytes]:
    """The files: they take seconds to make."""
    return [*hostile_files().values()]


def mixed_requests(seed: int) -> Iterator[Fuzzed]:
    """Requests spoilt by hand, and every so often a hostile one."""
    spoilt, hostile = mutated_requests(seed), hostile_requests(seed)
    for number in count(1):
        yield next(spoilt if number % HOSTILE_EVERY else hostile)


def send_mixed(port: int, requests: int, seed: int, tally: Tally) -> None:
    """Send spoilt and hostile requests from several clients at once."""
    source = islice(mixed_requests(seed), requests)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                fuzzed = next(source, None)
            if fuzzed is None:
                return
            tally.count(post(port, fuzzed), repr(fuzzed)[:2000])

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def post(port: int, fuzzed: Fuzzed) -> int | Exception:
    """Send one request on a connection of its own; give back the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        headers = {"Content-Type": fuzzed.content_type}
        connection.request("POST", fuzzed.path, fuzzed.body, headers)
        response = connection.getresponse()
        response.read()
        return response.status
    except (OSError, http.client.HTTPException) as error:
        return error
    finally:
        connection.close()


def get_json(port: int, path: str) -> Any:
    """Read a page of the server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("GET", path)
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found


class GoodClient:
    """Asks for something valid again and again, on one connection, until it is told to stop."""

    def __init__(self, port: int, body: bytes) -> None:
        self._port, self._body = port, body
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.latencies_s: list[float] = []
        self.errors: list[str] = []

    def __enter__(self) -> GoodClient:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        client = Client(self._port)
        while not self._stop.wait(PAUSE_S):
            started = time.perf_counter()
            try:
                client.ask(self._body)
            except Exception as error:  # every kind of error is what we want to see
                self.errors.append(f"{type(error).__name__}: {error}"[:300])
                client = Client(self._port)
            self.latencies_s.append(time.perf_counter() - started)

    def summary(self) -> dict[str, object]:
        """Requests, errors and times."""
        percentiles = statistics.quantiles(self.latencies_s, n=100)
        return {
            "requests": len(self.latencies_s),
            "errors": self.errors[:20],
            "p50_s": round(percentiles[49], 3),
            "p99_s": round(percentiles[98], 3),
            "max_s": round(max(self.latencies_s), 3),
        }


class Memory:
    """The most memory a process and its children had together, looked at often."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.most_mib = 0.0

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            self.most_mib = max(self.most_mib, family_rss_mib(self._pid))


def family_rss_mib(pid: int) -> float:
    """Resident memory of a process and its children; what they share counts for each."""
    kib = 0
    for one in (pid, *children_of(pid)):
        with contextlib.suppress(OSError):  # it ended meanwhile
            status = Path(f"/proc/{one}/status").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return kib / 1024


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def measure(model: str, requests: int, seed: int) -> dict[str, object]:
    """Fuzz a server of its own and look at it afterwards."""
    from_openapi, by_hand = Tally(), Tally()
    valid = make_body(0)
    started = time.monotonic()
    with Server(model, "--deadline", str(DEADLINE_S)) as server:
        before = Client(server.port).ask(valid)
        rss_before = server.rss_mib()
        with GoodClient(server.port, valid) as usual:
            while len(usual.latencies_s) < USUAL:
                time.sleep(0.1)
        with GoodClient(server.port, valid) as good, Memory(server.process.pid) as memory:
            send_from_openapi(server.port, requests // 2, from_openapi)
            send_mixed(server.port, requests - from_openapi.statuses.total(), seed, by_hand)
        alive = get_json(server.port, "/healthz") == {"status": "alive"}
        after = Client(server.port).ask(valid)
        rss_after = server.rss_mib()
    statuses = from_openapi.statuses + by_hand.statuses
    bound_s = 2 * statistics.quantiles(usual.latencies_s, n=100)[98] + DEADLINE_S
    return {
        "requests": statuses.total(),
        "hostile_requests": by_hand.statuses.total() // HOSTILE_EVERY,
        "seconds": round(time.monotonic() - started),
        "deadline_s": DEADLINE_S,
        "statuses": dict(sorted(statuses.items())),
        "from_openapi": dict(sorted(from_openapi.statuses.items())),
        "by_hand": dict(sorted(by_hand.statuses.items())),
        "server_errors": sum(n for name, n in statuses.items() if name not in EXPECTED),
        "failed": from_openapi.failed + by_hand.failed,
        "good_client_alone": usual.summary(),
        "good_client_beside": good.summary(),
        "good_client_bound_s": round(bound_s, 3),
        "good_client_within_bound": not good.errors and max(good.latencies_s) <= bound_s,
        "alive_afterwards": alive,
        "same_answer_as_before": before == after,
        "rss_mib_before": round(rss_before, 1),
        "rss_mib_after": round(rss_after, 1),
        "rss_mib_most_with_decoders": round(memory.most_mib, 1),
    }


def measure_stops(model: str, stops: int, seed: int) -> dict[str, object]:
    """Send SIGTERM to servers that are busy with hostile requests."""
    rng, seconds = random.Random(seed), []
    for number in range(stops):
        server = Server(model, "--deadline", str(STOP_DEADLINE_S))
        load = threading.Thread(
            target=send_hostile, args=(server.port, seed + number, server.process)
        )
        load.start()
        time.sleep(rng.uniform(1, 6))
        server.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        server.process.wait(120)
        seconds.append(time.monotonic() - started)
        load.join()
    promised_s = STOP_DEADLINE_S + GRACE_S
    return {
        "stops": stops,
        "deadline_s": STOP_DEADLINE_S,
        "promised_s": promised_s,
        "in_time": sum(one <= promised_s + STOP_SLACK_S for one in seconds),
        "seconds": [round(one, 2) for one in sorted(seconds)],
    }


def send_hostile(port: int, seed: int, process: subprocess.Popen[str]) -> None:
    """Send hostile requests from several clients until the server has ended."""

    def work(number: int) -> None:
        for fuzzed in hostile_requests(seed * 100 + number):
            if process.poll() is not None:
                return
            post(port, fuzzed)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


EXPECTED = frozenset(map(str, [*range(200, 500), 503, 504]))
STOP_SLACK_S = 0.5  # until the kernel has taken the memory of the process back


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stops", type=int, default=20)
    given = parser.parse_args()
    written_once()
    results = {
        "machine": {
            "cpus": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 1),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "schemathesis": version("schemathesis"),
        },
        "model": given.model,
        "seed": given.seed,
        **measure(given.model, given.requests, given.seed),
        "sigterm": measure_stops(given.model, given.stops, given.seed),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
