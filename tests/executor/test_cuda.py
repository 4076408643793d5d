"""What only a CUDA device can prove: ``pytest tests/executor/test_cuda.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_blocks.executor import load
from sam2_blocks.executor.device.graphs import GraphedFunction
from sam2_blocks.executor.device.transfer import Download, upload
from sam2_blocks.executor.rle import columns, postprocess
from sam2_blocks.executor.rle.columns import deviation
from sam2_blocks.executor.sam2.decode import Decoder
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.model import LoadedModel
from sam2_blocks.executor.sam2.packaged import PackagedEncoder, run_packages
from sam2_blocks.executor.weights.download import CACHE_VARIABLE
from sam2_blocks.masks.rle import rle_iou
from sam2_blocks.values import Embedding, Image, MaskPrediction, PromptSet
from tests.executor.rle.test_postprocess import assert_exact, smooth_logits
from tests.executor.sam2.test_parity import assert_same, boxes_in, official_predictor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # The official predictor scripts its transforms; torch's compiler scripts modules of its own.
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

DEVICE = torch.device("cuda", 0)
SEED = 7
GIB = 2**30


@pytest.fixture(scope="module")
def tiny_cuda() -> Sam2Executor:
    """A network of real size with random weights, in mode strict."""
    return load("sam2.1/hiera_tiny", device=str(DEVICE), seed=SEED, cache_bytes=0)


@pytest.fixture(scope="module")
def tiny_cuda_embedding(tiny_cuda: Sam2Executor, pictures: dict[str, Image]) -> Embedding:
    return tiny_cuda.embed([pictures["photo"]])[0]


@pytest.fixture(scope="module")
def trained() -> Callable[..., Sam2Executor]:
    """The embedded model with its weights, whose masks mean something."""
    return lambda **options: load("nano", device=str(DEVICE), **options)


@pytest.fixture
def float32_convolutions(monkeypatch) -> None:
    """Torch lets convolutions use TF32 unless told otherwise, for the official predictor too."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def segment_all(executor: Sam2Executor, pictures: dict[str, Image]) -> list[MaskPrediction]:
    """Ten boxes on each picture."""
    embeddings = executor.embed(list(pictures.values()))
    return executor.segment([(e, PromptSet.from_boxes(boxes_of(e))) for e in embeddings])


def boxes_of(embedding: Embedding) -> np.ndarray:
    """Boxes of a tenth to a half of the picture."""
    rng = np.random.default_rng(0)
    size_wh = np.array(embedding.image_hw[::-1])
    middle, extent = rng.uniform(0.2, 0.8, (10, 2)), rng.uniform(0.1, 0.5, (10, 2)) / 2
    corners = np.stack([middle - extent, middle + extent], 1).clip(0, 1) * size_wh
    return corners.reshape(-1, 4).astype(np.float32)


def ious(ours: list[MaskPrediction], theirs: list[MaskPrediction]) -> np.ndarray:
    pairs = zip(ours, theirs, strict=True)
    return np.array([rle_iou(a, b) for x, y in pairs for a, b in zip(x.rles, y.rles, strict=True)])


# Post-processing: byte for byte what F.interpolate on this device gives.


@settings(max_examples=50, deadline=None)
@given(
    image_hw=st.tuples(st.integers(1, 2200), st.integers(1, 2200)),
    seed=st.integers(0, 1000),
    threshold=st.sampled_from([0.0, 1.5, -2.0]),
    grid=st.sampled_from([256, 128, 64, 17]),
)
def test_masks_equal_the_obvious_way(image_hw, seed, threshold, grid):
    assert_exact(smooth_logits(seed, grid=grid).to(DEVICE), image_hw, threshold)


@pytest.mark.parametrize("image_hw", [(480, 640), (1080, 1920), (2160, 3840)])
def test_plateaus_at_the_threshold_are_exact(image_hw):
    logits = smooth_logits(4, n=3, grid=256)
    logits[1, 40:200, 60:180] = 0.0
    logits[2, 100:, :] = 0.0
    assert_exact(logits.to(DEVICE), image_hw)


def test_the_guard_band_is_narrow():
    """Wider than this, most masks would be done twice: look at where kernels fuse."""
    assert deviation(DEVICE, (256, 256)) < 1e-6


def test_masks_done_again_are_exact_too(monkeypatch):
    monkeypatch.setattr(columns, "deviation", lambda device, low_res_hw: 1.0)
    assert_exact(smooth_logits(6, n=5, grid=256).to(DEVICE), (1080, 1920))


def test_one_mask_at_a_time_is_exact_too(monkeypatch):
    monkeypatch.setattr(postprocess, "_is_bound_by_launches", lambda device: False)
    assert_exact(smooth_logits(8, n=5, grid=256).to(DEVICE), (853, 1279))


def test_transfers_through_pinned_memory():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    pixels.setflags(write=False)
    mirrored = upload(pixels[:, ::-1], DEVICE)
    expected = torch.from_numpy(pixels[:, ::-1].copy()).to(DEVICE)
    assert torch.equal(mirrored, expected)
    [back] = Download(mirrored).arrays()
    assert np.array_equal(back, pixels[:, ::-1])


# Mode strict: the official predictor on the same device.


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize("count", [1, 20, 50])
def test_strict_equals_the_official_predictor(
    float32_convolutions, tiny_cuda, tiny_cuda_embedding, official_class, count, multimask_output
):
    boxes = boxes_in((640, 480), count)
    predictor = official_predictor(official_class, tiny_cuda, tiny_cuda_embedding)
    masks, iou, logits = predictor.predict(box=boxes, multimask_output=multimask_output)
    shape = (count, -1, *masks.shape[-2:])
    [ours] = tiny_cuda.segment(
        [(tiny_cuda_embedding, PromptSet.from_boxes(boxes))], multimask_output=multimask_output
    )
    assert_same(
        ours,
        masks.reshape(shape),
        iou.reshape(count, -1),
        logits.reshape(count, -1, *logits.shape[-2:]),
    )


def test_strict_equals_the_official_predictor_from_pixels(
    float32_convolutions, trained, pictures, official_class
):
    executor = trained()
    predictor = official_class(executor.model.network)
    size = executor.model.low_res_hw[0]
    predictor._bb_feat_sizes = [(size // 2**i,) * 2 for i in range(3)]  # hard coded upstream
    for picture in pictures.values():
        predictor.set_image(picture.pixels)
        [embedding] = executor.embed([picture])
        boxes = boxes_of(embedding)
        [ours] = executor.segment([(embedding, PromptSet.from_boxes(boxes))])
        assert_same(ours, *predictor.predict(box=boxes))


# Mode fast: close to strict, and graphs that change nothing.


@pytest.mark.parametrize(
    ("options", "mean_iou"),
    [
        ({"mode": "fast"}, 0.93),
        ({"dtype": "float16"}, 0.99),
        ({"mode": "fast", "dtype": "float32"}, 0.99),
    ],
)
def test_fast_is_close_to_strict(trained, pictures, options, mean_iou):
    before = torch.get_float32_matmul_precision()
    strict, fast = (segment_all(trained(**o), pictures) for o in ({}, options))
    assert torch.get_float32_matmul_precision() == before
    found = ious(fast, strict)
    assert found.mean() >= mean_iou, f"mean {found.mean():.4f}, lowest {np.sort(found)[:5]}"


@pytest.mark.parametrize("level", ["encoder", "all"])
def test_compiled_is_close_to_eager(trained, pictures, level):
    eager = segment_all(trained(dtype="float16"), pictures)
    compiled = segment_all(trained(dtype="float16", compile=level), pictures)
    found = ious(compiled, eager)
    assert found.mean() >= 0.99, f"mean {found.mean():.4f}, lowest {np.sort(found)[:5]}"


def test_graphs_equal_the_functions_they_record(monkeypatch, trained, pictures):
    graphs = segment_all(trained(dtype="float16"), pictures)
    monkeypatch.setattr(LoadedModel, "accelerate", lambda self, function, part: function)
    eager = segment_all(trained(dtype="float16"), pictures)
    for ours, theirs in zip(graphs, eager, strict=True):
        np.testing.assert_allclose(ours.low_res_logits, theirs.low_res_logits, atol=1e-2)
    assert ious(graphs, eager).min() >= 0.995


def test_a_replay_depends_on_its_own_inputs_only(trained, pictures):
    executor = trained(dtype="float16")
    embeddings = executor.embed(list(pictures.values()))
    prompts = [PromptSet.from_boxes(boxes_of(embedding)) for embedding in embeddings]

    def ask(*which: int) -> list[np.ndarray]:
        answers = executor.segment([(embeddings[i], prompts[i]) for i in which])
        return [answer.low_res_logits for answer in answers]

    first, together = ask(0), ask(0, 1, 2)
    ask(2)
    assert np.array_equal(ask(0)[0], first[0])
    for ours, theirs in zip(ask(0, 1, 2), together, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_two_threads_get_the_answers_of_one(trained, pictures, dtype):
    executor = trained(dtype=dtype, cache_bytes=0)
    expected = segment_all(executor, pictures)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: segment_all(executor, pictures), range(12)))
    for result in results:
        for ours, theirs in zip(result, expected, strict=True):
            assert np.array_equal(ours.low_res_logits, theirs.low_res_logits)
            for a, b in zip(ours.rles, theirs.rles, strict=True):
                assert np.array_equal(a.counts, b.counts)


def test_strict_beside_fast_stays_strict(trained, pictures):
    """One switch for TF32 in the process, and two executors that want it otherwise."""
    strict, fast = trained(cache_bytes=0), trained(mode="fast", dtype="float32", cache_bytes=0)
    expected = segment_all(strict, pictures)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda e: segment_all(e, pictures), [strict, fast] * 6))
    for result in answers[0::2]:
        for ours, theirs in zip(result, expected, strict=True):
            assert np.array_equal(ours.low_res_logits, theirs.low_res_logits)


# Packages: code compiled ahead of time, with the executor's own weights.


def test_a_package_is_close_to_eager_and_recorded(monkeypatch, tmp_path, trained, pictures):
    # Imports torch's compiler, whose warnings are allowed in tests alone.
    from sam2_blocks.executor.sam2.packaging import load_for_packages, package_encoder

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    made = package_encoder(load_for_packages("nano", device=str(DEVICE), dtype="float16"), 1)
    assert made.seconds > 0
    assert made.difference < 0.03, f"{made.difference:.2%}"
    assert made.nbytes < 20e6
    eager = segment_all(trained(dtype="float16"), pictures)
    executor = trained(dtype="float16", compile="encoder", cache_bytes=0)
    assert list(executor.model.packages) == [1]
    first, second = (segment_all(executor, pictures) for _ in range(2))
    found = ious(first, eager)
    assert found.mean() >= 0.99, f"mean {found.mean():.4f}, lowest {np.sort(found)[:5]}"
    assert ious(first, second).min() == 1  # replays
    assert_recorded(executor.model)


def assert_recorded(model: LoadedModel) -> None:
    """Replays of pictures of noise, one after another, are what the package computes of them."""
    encoder = model.frame_encoder
    assert isinstance(encoder, PackagedEncoder)
    assert isinstance(encoder._run, GraphedFunction)
    run = run_packages(model.packages, model.network)
    side = model.image_size
    batch = torch.randn(3, 3, side, side, device=DEVICE, generator=torch.Generator(DEVICE))
    with model.computing():
        expected = [run(one) for one in batch.split(1)]
        replayed = encoder(batch)
    assert len(encoder._run._graphs) == 1
    for level, maps in enumerate(replayed):
        torch.testing.assert_close(maps, torch.cat([one[level] for one in expected]))


# Memory.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_hundred_boxes_on_4k_need_two_gib_at_most(dtype, pictures):
    """Random weights give the most runs there can be, over the whole of the picture."""
    executor = load("sam2.1/hiera_tiny", device=str(DEVICE), seed=SEED, dtype=dtype, cache_bytes=0)
    pixels = np.tile(pictures["photo"].pixels, (5, 6, 1))[:2160, :3840]
    [embedding] = executor.embed([Image(pixels)])
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    executor.segment([(embedding, PromptSet.from_boxes(boxes_in((3840, 2160), 100)))])
    extra = torch.cuda.max_memory_allocated() - before
    assert extra <= 2 * GIB, f"{extra / GIB:.2f} GiB beside weights and embedding"


@pytest.fixture
def little_memory() -> Iterator[Callable[[int], None]]:
    """``little_memory(n)`` leaves this process n bytes more than it holds."""

    def limit(nbytes: int) -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(DEVICE).total_memory
        torch.cuda.set_per_process_memory_fraction(
            (torch.cuda.memory_reserved() + nbytes) / total, DEVICE
        )

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)


def test_out_of_memory_halves_the_chunk(monkeypatch, tiny_cuda, tiny_cuda_embedding, little_memory):
    prompts = PromptSet.from_boxes(boxes_in((640, 480), 40))
    [expected] = tiny_cuda.segment([(tiny_cuda_embedding, prompts)])
    decode, sizes = Decoder.decode, []
    monkeypatch.setattr(
        Decoder,
        "decode",
        lambda self, rows, **options: sizes.append(len(rows)) or decode(self, rows, **options),
    )
    little_memory(GIB // 2)
    [halved] = tiny_cuda.segment([(tiny_cuda_embedding, prompts)])
    assert sizes[0] == tiny_cuda._decoder.chunk_size > sizes[-1]
    # Another size of batch is another order of sums: 1.3e-4 on an H200, of logits to 32.
    np.testing.assert_allclose(halved.low_res_logits, expected.low_res_logits, atol=5e-4)
    assert ious([halved], [expected]).min() >= 0.9999
