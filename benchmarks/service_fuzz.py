"""The service under wrong requests, on the loopback address of this machine only.

    python -m benchmarks.service_fuzz [--requests 10000] [--model nano] [--seed 0]

Half of the requests are made by schemathesis from the OpenAPI page; the others are valid ones,
most of them spoilt by hand (`tests/hosts/fuzzing.py`), from several clients at once. They go to
``sam2-blocks serve`` in a process of its own. Answered in ``benchmarks/results/service_fuzz.json``:
how often came each status, is the server alive afterwards, does it answer as it did before?
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import threading
import time
from collections import Counter
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import schemathesis

from benchmarks.service_load import Client, Server, make_body
from tests.hosts.fuzzing import Fuzzed, check_openapi, mutated_requests

RESULTS = Path(__file__).parent / "results" / "service_fuzz.json"
CLIENTS = 4
TIMEOUT_S = 120


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
            if (not is_status or outcome >= 500) and len(self.failed) < 20:
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


def send_mutated(port: int, requests: int, seed: int, tally: Tally) -> None:
    """Send spoilt requests from several clients at once."""
    source = islice(mutated_requests(seed), requests)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                fuzzed = next(source, None)
            if fuzzed is None:
                return
            tally.count(post(port, fuzzed), repr(fuzzed))

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


def measure(model: str, requests: int, seed: int) -> dict[str, object]:
    """Fuzz a server of its own and look at it afterwards."""
    from_openapi, by_hand = Tally(), Tally()
    valid = make_body(0)
    started = time.monotonic()
    with Server(model) as server:
        before = Client(server.port).ask(valid)
        rss_before = server.rss_mib()
        send_from_openapi(server.port, requests // 2, from_openapi)
        send_mutated(server.port, requests - from_openapi.statuses.total(), seed, by_hand)
        alive = get_json(server.port, "/healthz") == {"status": "alive"}
        after = Client(server.port).ask(valid)
        rss_after = server.rss_mib()
    statuses = from_openapi.statuses + by_hand.statuses
    return {
        "requests": statuses.total(),
        "seconds": round(time.monotonic() - started),
        "statuses": dict(sorted(statuses.items())),
        "from_openapi": dict(sorted(from_openapi.statuses.items())),
        "by_hand": dict(sorted(by_hand.statuses.items())),
        "server_errors": sum(n for name, n in statuses.items() if name not in CLIENT_STATUSES),
        "failed": from_openapi.failed + by_hand.failed,
        "alive_afterwards": alive,
        "same_answer_as_before": before == after,
        "rss_mib_before": round(rss_before, 1),
        "rss_mib_after": round(rss_after, 1),
    }


CLIENT_STATUSES = frozenset(map(str, range(200, 500)))


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    results = {
        "machine": {
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "schemathesis": version("schemathesis"),
        },
        "model": given.model,
        "seed": given.seed,
        **measure(given.model, given.requests, given.seed),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
