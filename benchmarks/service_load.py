"""The service under load, on the loopback address of this machine only.

    python benchmarks/service_load.py [--seconds 120] [--clients 32] [--model nano]

Four questions, answered in ``benchmarks/results/service_load.json``:

- load: many clients for two minutes. Are there errors, is every answer that of a single client,
  does memory stay bounded? There are three times as many images as the cache of embeddings holds,
  so the encoder never rests.
- gathering: requests per second with batches, over one at a time.
- one image: 200 concurrent requests for one new image. How often does the encoder run?
- kill: the server is killed under load, while it writes embeddings to disk, and started again, time
  after time. What do clients see, is every file whole, are the answers from disk the same?
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image as Pil

from sam2_blocks.executor.cache.files import read_entry
from sam2_blocks.masks.rle import coco_to_rle, rle_iou

RESULTS = Path(__file__).parent / "results" / "service_load.json"
IMAGES = 96
CACHED_IMAGES = 32
NANO_EMBEDDING_MIB = 0.5
DISK_CACHE_MIB = 24
KILLS = 8
SETTLED_AFTER_S = 20
CONFIDENCE_TOLERANCE = 1e-4

Body = bytes
Answer = list[tuple[str, float]]


class Server:
    """``sam2-blocks serve`` in a process of its own."""

    def __init__(self, model: str, *options: str, port: int = 0) -> None:
        environment = dict(os.environ, SAM2_BLOCKS_PLUGINS="", SAM2_BLOCKS_EMBEDDING_CACHE_DIR="")
        command = [sys.executable, "-W", "ignore", "-m", "sam2_blocks", "serve"]
        self.process = subprocess.Popen(
            [*command, "--port", str(port), "--model", model, *options],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(line.rpartition(":")[2])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)

    def rss_mib(self) -> float:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


class Client:
    """One connection, kept open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, body: Body) -> Answer:
        """Send one request; give back its masks."""
        self._connection.request("POST", "/sam2/segment_image", body)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"status {response.status}: {content[:200]!r}")
        rows = json.loads(content)["predictions"]
        return [(json.dumps(row["masks"]), row["confidence"]) for row in rows]


def likeness(first: Answer, second: Answer) -> float:
    """Smallest IoU of their masks: 1 if identical; 0 if confidence or number differ.

    Another batch size rounds sums in another order: logits change by about 1e-5, and a pixel on the
    border of a mask may change sides.
    """
    if len(first) != len(second):
        return 0.0
    if any(abs(a - b) > CONFIDENCE_TOLERANCE for (_, a), (_, b) in zip(first, second, strict=True)):
        return 0.0
    return min(
        1.0 if a == b else rle_iou(coco_to_rle(json.loads(a)), coco_to_rle(json.loads(b)))
        for (a, _), (b, _) in zip(first, second, strict=True)
    )


def make_body(seed: int, hw: tuple[int, int] = (240, 320)) -> Body:
    """A request for one to three boxes on a smooth random picture."""
    rng = np.random.default_rng(seed)
    coarse = Pil.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    stream = io.BytesIO()
    coarse.resize((hw[1], hw[0]), Pil.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    boxes = [
        {"box": {"x": float(x), "y": float(y), "width": 60.0, "height": 50.0}}
        for x, y in rng.integers(60, 180, (1 + seed % 3, 2))
    ]
    request = {
        "image": {"type": "base64", "value": base64.b64encode(stream.getvalue()).decode()},
        "prompts": {"prompts": boxes},
        "format": "rle",
    }
    return json.dumps(request).encode()


class Load:
    """Clients in threads that ask for random requests of a list until they are told to stop."""

    def __init__(
        self, port: int, bodies: Sequence[Body], answers: Sequence[Answer], clients: int
    ) -> None:
        self._port, self._bodies, self._answers = port, bodies, answers
        self._stop = threading.Event()
        self.latencies_ms: list[float] = []
        self.likenesses: list[float] = []
        self.errors: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]

    def start(self) -> None:
        """Let the clients go."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the answers under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        rng, client = random.Random(number), Client(self._port)
        while not self._stop.is_set():
            index = rng.randrange(len(self._bodies))
            started = time.perf_counter()
            try:
                answer = client.ask(self._bodies[index])
            except Exception as error:  # every kind of error is what we want to count
                self.errors[type(error).__name__] += 1
                return
            self.latencies_ms.append(1000 * (time.perf_counter() - started))
            self.likenesses.append(likeness(answer, self._answers[index]))


def equality(likenesses: Sequence[float]) -> dict[str, object]:
    """Say how many answers are those of a single client, and how far the others are off."""
    return {
        "answers": len(likenesses),
        "not_identical": sum(value < 1 for value in likenesses),
        "smallest_iou": round(min(likenesses, default=1.0), 6),
    }


def single_client_answers(port: int, bodies: Sequence[Body]) -> list[Answer]:
    """Ask for everything once, one after the other."""
    client = Client(port)
    return [client.ask(body) for body in bodies]


def measure_load(model: str, clients: int, seconds: float) -> dict[str, object]:
    """Many clients for a while: errors, equality, memory."""
    bodies = [make_body(seed) for seed in range(IMAGES)]
    cache_mib = int(CACHED_IMAGES * NANO_EMBEDDING_MIB)
    with Server(model, "--cache-mb", str(cache_mib)) as server:
        answers = single_client_answers(server.port, bodies)
        load = Load(server.port, bodies, answers, clients)
        started = time.monotonic()
        load.start()
        rss = []
        while (now := time.monotonic() - started) < seconds:
            rss.append((now, server.rss_mib()))
            time.sleep(1)
        load.stop()
        elapsed = time.monotonic() - started
        runs = server.metric("sam2_blocks_encoder_runs_total")
    settled = max(mib for at, mib in rss if at <= SETTLED_AFTER_S)
    last = statistics.median(mib for at, mib in rss if at >= seconds - 10)
    percentiles = statistics.quantiles(load.latencies_ms, n=100)
    return {
        "clients": clients,
        "seconds": round(elapsed, 1),
        "requests": len(load.latencies_ms),
        "requests_per_s": round(len(load.latencies_ms) / elapsed, 1),
        "latency_ms_p50": round(percentiles[49], 1),
        "latency_ms_p99": round(percentiles[98], 1),
        "errors": dict(load.errors),
        "beside_a_single_client": equality(load.likenesses),
        "encoder_runs": int(runs),
        "rss_mib_most_in_the_first_20_s": round(settled, 1),
        "rss_mib_end": round(last, 1),
        "rss_growth_percent": round(100 * (last / settled - 1), 2),
        "rss_mib_every_10_s": [round(mib) for _, mib in rss[::10]],
    }


def measure_gathering(model: str, clients: int, seconds: float) -> dict[str, object]:
    """Requests per second with and without gathering, in turns, with and without known images."""
    bodies = [make_body(seed) for seed in range(IMAGES)]
    result: dict[str, object] = {"seconds": seconds, "rounds": "1, 16, 16, 1"}
    with Server(model) as server:
        answers = single_client_answers(server.port, bodies)
    for case, cache_mb in (("new images", "0"), ("known images", "256")):
        rates: dict[str, list[float]] = {"1": [], "16": []}
        for max_batch in ("1", "16", "16", "1"):
            with Server(model, "--cache-mb", cache_mb, "--max-batch", max_batch) as server:
                single_client_answers(server.port, bodies)  # makes images known, if kept
                load = Load(server.port, bodies, answers, clients)
                load.start()
                time.sleep(seconds)
                load.stop()
                rates[max_batch].append(len(load.latencies_ms) / seconds)
        alone, gathered = statistics.mean(rates["1"]), statistics.mean(rates["16"])
        result[case] = {
            "one_at_a_time_per_s": round(alone, 1),
            "gathered_per_s": round(gathered, 1),
            "ratio": round(gathered / alone, 2),
        }
    return result


def measure_one_image(model: str, requests: int = 200) -> dict[str, object]:
    """Many concurrent requests for one new image."""
    body = make_body(12345)
    with Server(model) as server:
        barrier = threading.Barrier(requests)
        answers: list[Answer] = []

        def ask() -> None:
            client = Client(server.port)
            barrier.wait()
            answers.append(client.ask(body))

        threads = [threading.Thread(target=ask) for _ in range(requests)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        runs = server.metric("sam2_blocks_encoder_runs_total")
    return {
        "requests": requests,
        "answered": len(answers),
        "beside_the_first": equality([likeness(answer, answers[0]) for answer in answers]),
        "encoder_runs": int(runs),
    }


def measure_kill(model: str, clients: int) -> dict[str, object]:
    """Kill the server under load and start it again, on the same port and folder.

    Nothing is kept in memory and the folder holds half of the images, so that the server reads,
    writes and drops files all the time.
    """
    bodies = [make_body(seed) for seed in range(IMAGES)]
    with Server(model) as server:
        answers, port = single_client_answers(server.port, bodies), server.port
    rng, errors, verified = random.Random(0), Counter[str](), Counter[str]()
    likenesses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        options = ("--cache-mb", "0", "--cache-dir", folder, "--disk-cache-mb", str(DISK_CACHE_MIB))
        for _ in range(KILLS):
            server = Server(model, *options, port=port)
            load = Load(server.port, bodies, answers, clients)
            load.start()
            time.sleep(rng.uniform(2, 4))
            server.process.kill()
            server.process.communicate()
            load.stop()
            errors.update(load.errors)
            likenesses += load.likenesses
            files = check_folder(folder)
            verified += files
        with Server(model, "--cache-mb", "0", "--cache-dir", folder, port=port) as again:
            after = single_client_answers(again.port, bodies)
            from_disk = again.metric("sam2_blocks_embedding_cache_hits_total")
    return {
        "clients": clients,
        "kills": KILLS,
        "client_errors": dict(errors),
        "beside_a_single_client": equality(likenesses),
        "files_verified_after_the_kills": verified["whole"] + verified["broken"],
        "files_broken": verified["broken"],
        "files_half_written_and_never_read": files["unfinished"],
        "after_the_last_restart": equality(list(map(likeness, answers, after))),
        "files_then_there": files["whole"],
        "answers_from_disk": int(from_disk),
    }


def check_folder(folder: str) -> Counter[str]:
    """Verify every embedding in a folder as the library does, and count what else is there."""
    files: Counter[str] = Counter()
    for path in Path(folder).iterdir():
        if path.suffix == ".part":
            files["unfinished"] += 1
            continue
        try:
            read_entry(path)
            files["whole"] += 1
        except ValueError:
            files["broken"] += 1
    return files


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--model", default="nano")
    given = parser.parse_args()
    results = {
        "machine": {
            "cpus": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 1),
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS", "unset"),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "torch": version("torch"),
        },
        "model": given.model,
        "image": "320x240 JPEG, one to three boxes",
        "load": measure_load(given.model, given.clients, given.seconds),
        "gathering": measure_gathering(given.model, given.clients, min(15, given.seconds)),
        "one_image": measure_one_image(given.model),
        "kill": measure_kill(given.model, given.clients),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
