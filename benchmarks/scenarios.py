"""What is measured: each scenario yields cases, each case the rows of its peers."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PilImage
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cold import time_cold_starts
from benchmarks.int8 import OursInt8
from benchmarks.measure import (
    EQUAL,
    Agreement,
    CocoRle,
    Gate,
    Timing,
    available_bytes,
    compare,
    peak_extra_mb,
    synchronise,
    time_interleaved,
)
from benchmarks.openvino_plain import OpenVinoPlain
from benchmarks.peers import (
    Official,
    OfficialCompiled,
    OfficialHalf,
    Ours,
    OursCompiled,
    OursEncoderCompiled,
    OursFast,
    OursOpenVino,
    OursOpenVinoFast,
    OursPackaged,
    Peer,
    TunedDense,
    encode_best,
    encode_dense,
    official_class,
)
from benchmarks.scenes import Scene, make_photo_scene, make_scene
from benchmarks.third_party import Roboflow, Transformers
from benchmarks.weights import SEED, Weights
from sam2_blocks.executor.device.chunks import even_sizes
from sam2_blocks.executor.device.workers import Workers
from sam2_blocks.executor.rle.postprocess import logits_to_rles
from sam2_blocks.masks.rle import rle_to_coco

SIZES_HW = {"VGA": (480, 640), "1080p": (1080, 1920), "4K": (2160, 3840)}
MASKS = ("small", "large")
PEERS: tuple[type[Peer], ...] = (
    Official,
    OfficialHalf,
    OfficialCompiled,
    TunedDense,
    Transformers,
    Roboflow,
    OpenVinoPlain,
    Ours,
    OursFast,
    OursOpenVino,
    OursOpenVinoFast,
    OursInt8,
    OursCompiled,
    OursEncoderCompiled,
    OursPackaged,
)
LABELS = {peer.label(): peer for peer in PEERS}
MOST_COLD_RUNS = 5
JOBS_AT_ONCE = 4  # masks a worker encodes at a time, as in the executor
MATMUL_SIDE = {"cuda": 8192, "cpu": 2048}


@dataclass(frozen=True)
class Settings:
    """How to run; see ``python -m benchmarks --help``."""

    models: tuple[str, ...]
    device: str
    peers: tuple[str, ...]
    runs: int
    warmups: int
    seconds: float
    sizes: tuple[str, ...]
    counts: tuple[int, ...]
    masks: tuple[str, ...]
    batches: tuple[int, ...]
    pictures: int


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        scenario: name of the function here.
        model: whose weights, empty where none are used.
        case: what was varied, such as ``1080p x 100 small``.
        peer: who did it.
        mode: how it computed.
        timing: None for rows of memory alone, and for peers that were skipped.
        peak_mb: extra memory at its peak.
        agreement: with the reference, the first peer of the case; None for that one itself.
        gate: what the agreement must keep.
        ratio: the reference's median over this one; above 1 is faster (or smaller, for memory).
        note: why a peer was skipped, or what else to know.
    """

    scenario: str
    model: str
    case: str
    peer: str
    mode: str
    timing: Timing | None = None
    peak_mb: float | None = None
    agreement: Agreement | None = None
    gate: Gate | None = None
    ratio: float | None = None
    note: str = ""

    @property
    def label(self) -> str:
        """Of the peer."""
        return f"{self.peer} {self.mode}"

    @property
    def fails(self) -> bool:
        """Whether its masks are not what its time is for."""
        return bool(self.agreement and self.gate and not self.gate.passes(self.agreement))


Case = list[Row]


def rle(settings: Settings) -> Iterator[Case]:
    """Low-resolution logits to COCO run lengths: what comes after the decoder, alone."""
    for name, scene in _given_scenes(settings):
        jobs = {label: partial(job, scene) for label, job in _logits_jobs(settings.device).items()}
        skipped = _drop_dense(jobs, [Official.label()], scene, Row("rle", "", name, "", ""))
        rows = _time(jobs, settings, Row("rle", "", name, "", ""), lambda label: EQUAL)
        yield skipped + rows


def boxes(settings: Settings) -> Iterator[Case]:
    """Cached embedding and boxes to COCO run lengths: decoder and everything after it."""
    for model in settings.models:
        for name, scene in _scenes(model, settings):
            yield _segment("boxes", model, name, scene, settings)


def click(settings: Settings) -> Iterator[Case]:
    """One point on a picture whose embedding is at hand: what an annotator waits for."""
    for model in settings.models:
        for name, scene in _scenes(model, replace(settings, counts=(1,), masks=("small",))):
            yield _segment("click", model, name, scene.clicked(), settings)


def encoder(settings: Settings) -> Iterator[Case]:
    """Pictures to embeddings, from what the encoder sees, beside the time its FLOPs must take.

    Masks are those of ten boxes on the photograph, from the picture on.
    """
    for model in settings.models:
        network = _weights(model, settings.device).network
        size, gflop = network.image_size, _encoder_gflop(network)
        peers = {peer.label(): peer for peer in _peers(model, settings, leave_out=(TunedDense,))}
        compared = _compare_from_pictures(model, peers, settings.device)
        for count in settings.batches:
            batch = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(SEED))
            batch = batch.to(settings.device)
            jobs = {label: partial(peer.encode, batch) for label, peer in peers.items()}
            head = Row("encoder", model, f"batch {count}", "", "")
            rows = _time(jobs, settings, head)
            yield [
                replace(_beside_floor(row, gflop * count, settings.device), **compared[row.label])
                for row in rows
            ]


def _compare_from_pictures(
    model: str, peers: Mapping[str, Peer], device: str
) -> dict[str, dict[str, Any]]:
    """Compare masks with those of the first peer; masks of random weights are noise, not judged.

    Returns:
        Fields of each peer's rows, by its label.
    """
    scene = make_photo_scene(SIZES_HW["1080p"], 10)
    answers: dict[str, list[CocoRle]] = {}
    for label, peer in peers.items():
        peer.look_at(scene.pixels)
        answers[label] = peer.segment(scene)
    reference, *others = answers
    found: dict[str, dict[str, Any]] = {reference: {}}
    for label in others:
        gate = peers[label].gate(scene) if _weights(model, device).trained else None
        found[label] = {"agreement": compare(answers[label], answers[reference]), "gate": gate}
    return found


def folder(settings: Settings) -> Iterator[Case]:
    """JPEG files with ten boxes each, nothing cached, to COCO run lengths."""
    for model in settings.models:
        scene = _scene(model, SIZES_HW["1080p"], 10, "small", settings.device)
        with tempfile.TemporaryDirectory() as directory:
            files = _write_files(Path(directory), scene.pixels, settings.pictures)
            yield _segment_files(model, files, scene, settings)


def memory(settings: Settings) -> Iterator[Case]:
    """Peak memory above model and embedding, while boxes become run lengths."""
    count = max(settings.counts)
    for model in settings.models:
        for size in settings.sizes:
            head = Row("memory", model, f"{size} x {count} boxes", "", "")
            scene = make_scene(SIZES_HW[size], 1, "small")
            rows: Case = []
            for peer in _peer_classes(settings):
                row = replace(head, peer=peer.name, mode=peer.mode)
                if peer.dense and count * _dense_bytes(scene) > available_bytes():
                    rows.append(replace(row, note="skipped: too little memory here"))
                    continue
                peak = peak_extra_mb(prepare_job, peer.label(), model, settings.device, size, count)
                first = rows[0].peak_mb if rows else peak
                rows.append(
                    replace(row, peak_mb=peak, ratio=first / max(peak, 1.0) if first else None)
                )
            yield rows


def cold(settings: Settings) -> Iterator[Case]:
    """A fresh interpreter to its first mask; see `time_cold_starts`."""
    for model in settings.models:
        seed = None if _weights(model, settings.device).trained else SEED
        for peer in _peer_classes(settings):
            if not issubclass(peer, Ours) or issubclass(peer, OursInt8):  # which is kept nowhere
                continue
            runs = min(settings.runs, MOST_COLD_RUNS)
            walls = time_cold_starts(model, peer, settings.device, seed, runs)
            timing = Timing(walls, [], os.getloadavg()[0])
            yield [Row("cold", model, "VGA x 1", peer.name, peer.mode, timing=timing)]


SCENARIOS: dict[str, Callable[[Settings], Iterator[Case]]] = {
    scenario.__name__: scenario for scenario in (rle, boxes, click, encoder, folder, memory, cold)
}


def prepare_job(label: str, model: str, device: str, size: str, count: int) -> Callable[[], Any]:
    """Build one job in a process of its own, warmed up on a single object of a small picture."""
    peer = LABELS[label](Weights(model, device))

    def prepare(image_hw: tuple[int, int], count: int) -> Callable[[], Any]:
        scene = _scene(model, image_hw, count, "small", device)
        peer.look_at(scene.pixels)
        return partial(peer.segment, scene)

    prepare((240, 320), 1)()
    return prepare(SIZES_HW[size], count)


def _segment(scenario: str, model: str, name: str, scene: Scene, settings: Settings) -> Case:
    """Measure the peers on one scene, each with its picture embedded beforehand."""
    peers = {peer.label(): peer for peer in _peers(model, settings)}
    head = Row(scenario, model, name, "", "")
    dense = [label for label, peer in peers.items() if peer.dense]
    skipped = _drop_dense(peers, dense, scene, head)
    for peer in peers.values():
        peer.look_at(scene.pixels)
    jobs = {label: partial(peer.segment, scene) for label, peer in peers.items()}
    return skipped + _time(jobs, settings, head, lambda label: peers[label].gate(scene))


def _segment_files(model: str, files: Sequence[Path], scene: Scene, settings: Settings) -> Case:
    peers = {peer.label(): peer for peer in _peers(model, settings)}
    jobs = {label: partial(peer.segment_files, files, scene) for label, peer in peers.items()}
    head = Row("folder", model, f"{len(files)} x 1080p x 10", "", "")
    rows = _time(jobs, settings, head, lambda label: peers[label].gate(scene))
    return [replace(row, note=_stages(peers[row.label], files, scene, row)) for row in rows]


def _time(
    jobs: dict[str, Callable[[], Any]],
    settings: Settings,
    head: Row,
    gate: Callable[[str], Gate] | None = None,
) -> Case:
    """Time the jobs of one case and compare their answers, if there is a gate for them."""
    timings, answers = time_interleaved(
        jobs, runs=settings.runs, warmups=settings.warmups, seconds=settings.seconds
    )
    reference = next(iter(jobs))
    rows = []
    for label, timing in timings.items():
        compared = gate is not None and label != reference
        rows.append(
            replace(
                head,
                peer=LABELS[label].name,
                mode=LABELS[label].mode,
                timing=timing,
                agreement=compare(answers[label], answers[reference]) if compared else None,
                gate=gate(label) if gate is not None else None,
                ratio=timings[reference].p50_ms / timing.p50_ms,
                note="" if reference == Official.label() else f"ratio to {reference}",
            )
        )
    return rows


def _drop_dense(jobs: dict[str, Any], dense: Iterable[str], scene: Scene, head: Row) -> Case:
    """Leave out what would not fit into memory, with a word."""
    needed = len(scene.boxes_xyxy) * _dense_bytes(scene)
    if needed < available_bytes():
        return []
    rows = []
    for label in dense:
        del jobs[label]
        peer, note = LABELS[label], f"skipped: needs {needed / 1e9:.0f} GB"
        rows.append(replace(head, peer=peer.name, mode=peer.mode, note=note))
    return rows


def _dense_bytes(scene: Scene) -> int:
    """Bytes for one prompt: three masks at full size, as float32 and as bool."""
    height, width = scene.image_hw
    return 3 * height * width * (4 + 1)


def _given_scenes(settings: Settings) -> Iterator[tuple[str, Scene]]:
    for name in settings.sizes:
        for count in settings.counts:
            for size in settings.masks:
                scene = make_scene(SIZES_HW[name], count, size, device=settings.device)
                yield f"{name} x {count} {size}", scene


def _scenes(model: str, settings: Settings) -> Iterator[tuple[str, Scene]]:
    if not _weights(model, settings.device).trained:
        yield from _given_scenes(settings)
        return
    for name in settings.sizes:
        for count in settings.counts:
            yield f"{name} x {count} photo", make_photo_scene(SIZES_HW[name], count)


def _scene(model: str, image_hw: tuple[int, int], count: int, size: str, device: str) -> Scene:
    if _weights(model, device).trained:
        return make_photo_scene(image_hw, count)
    return make_scene(image_hw, count, size, device=device)


@functools.lru_cache(maxsize=2)
def _weights(model: str, device: str) -> Weights:
    return Weights(model, device)


@functools.lru_cache(maxsize=2 * len(PEERS))
def _peer(kind: type[Peer], model: str, device: str) -> Peer:
    return kind(_weights(model, device))


def _peer_classes(settings: Settings) -> list[type[Peer]]:
    return [LABELS[label] for label in settings.peers if not LABELS[label].missing()]


def _peers(model: str, settings: Settings, leave_out: Sequence[type[Peer]] = ()) -> list[Peer]:
    kinds = [kind for kind in _peer_classes(settings) if kind not in leave_out]
    return [_peer(kind, model, settings.device) for kind in kinds]


def _logits_jobs(device: str) -> dict[str, Callable[[Scene], Any]]:
    """The ways from logits to run lengths, without a network."""
    official_class()
    from sam2.utils.transforms import SAM2Transforms

    transforms = SAM2Transforms(resolution=1024, mask_threshold=0.0)
    workers = Workers() if device == "cpu" else None  # as in the executor

    def official(scene: Scene) -> Any:
        masks = transforms.postprocess_masks(scene.logits, scene.image_hw) > 0
        return encode_best(masks.float().cpu().numpy(), scene.iou.cpu().numpy())

    def tuned(scene: Scene) -> Any:
        return encode_dense(scene.logits, scene.iou, scene.image_hw)

    def ours(scene: Scene) -> Any:
        def encode(logits: torch.Tensor) -> Any:
            rles, _ = logits_to_rles(logits, scene.image_hw)
            return [dict(rle_to_coco(rle)) for rle in rles]

        best = scene.iou.argmax(1)
        chosen = scene.logits[torch.arange(len(best), device=best.device), best]
        return (
            encode(chosen)
            if workers is None
            else workers.map_chunks(
                encode, chosen, even_sizes(len(chosen), JOBS_AT_ONCE, workers.count)
            )
        )

    return {Official.label(): official, TunedDense.label(): tuned, Ours.label(): ours}


def _encoder_gflop(network: Any) -> float:
    """Count a picture's floating-point operations; fused attention would not be counted."""
    size = network.image_size
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        network.forward_image(torch.zeros(1, 3, size, size, device=network.device))
    return counter.get_total_flops() / 1e9


def _beside_floor(row: Row, gflop: float, device: str) -> Row:
    half = not LABELS[row.label].exact and row.peer != Transformers.name
    speed = _matmul_tflops(device, torch.bfloat16 if half else torch.float32)
    floor_ms = gflop / speed
    assert row.timing is not None
    times = row.timing.p50_ms / floor_ms
    note = f"{times:.1f} x the floor: {gflop:,.0f} GFLOP at {speed:.2f} TFLOP/s, {floor_ms:,.2f} ms"
    return replace(row, note=note)


@functools.cache
def _matmul_tflops(device: str, dtype: torch.dtype) -> float:
    """Measure what the device does at best: TFLOP/s of a large square product."""
    side = MATMUL_SIDE.get(torch.device(device).type, MATMUL_SIDE["cpu"])
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    timings, _ = time_interleaved({"": lambda: a @ b}, runs=10, warmups=2, seconds=10)
    return 2 * side**3 / min(timings[""].wall_s) / 1e12


def _write_files(directory: Path, pixels: np.ndarray, count: int) -> list[Path]:
    """Write JPEGs of one picture, each a little darker than the one before."""
    files = [directory / f"{i:03}.jpg" for i in range(count)]
    for i, path in enumerate(files):
        shade = (pixels * (1 - 0.3 * i / count)).astype(np.uint8)
        PilImage.fromarray(shade).save(path, quality=90)
    return files


def _stages(peer: Peer, files: Sequence[Path], scene: Scene, row: Row) -> str:
    """Run the stages once more, one after another with a clock, and say which one limits."""
    shares: dict[str, float] = {}
    last = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal last
        synchronise()
        now = time.perf_counter()
        shares[stage] = shares.get(stage, 0.0) + now - last
        last = now

    peer.segment_in_stages(files, scene, lap)
    total = sum(shares.values())
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{stage} {seconds / total:.0%}" for stage, seconds in ranked)
    assert row.timing is not None
    return f"{len(files) / row.timing.p50_ms * 1e3:.2f} pictures/s; limited by {parts}"
