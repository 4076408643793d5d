"""Which backend is chosen, and that OpenVINO computes what torch computes."""

from __future__ import annotations

import logging
import platform
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2_blocks.errors import MissingExtraError, ModelError
from sam2_blocks.executor import load
from sam2_blocks.executor.backends import BACKEND_VARIABLE
from sam2_blocks.executor.sam2 import backend, loading, nested
from sam2_blocks.executor.sam2.backend import (
    DECODED_AT_ONCE,
    OpenVinoDecoder,
    choose_backend,
    openvino_encoder,
)
from sam2_blocks.executor.sam2.decode import Decoder
from sam2_blocks.executor.sam2.rows import prompts_to_rows
from sam2_blocks.executor.weights.download import CACHE_VARIABLE
from sam2_blocks.testing import sample_image
from sam2_blocks.values import Prompt, PromptSet
from tests.executor.conftest import NEEDS_OPENVINO, SEED

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
STRICT, FAST = (torch.float32, "strict"), (torch.bfloat16, "fast")


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(backend, "has_openvino", lambda: True)
    monkeypatch.setattr(backend, "find_backend_problem", lambda name: "")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)


@pytest.mark.usefixtures("installed")
def test_auto_is_torch_in_strict_and_the_faster_one_in_fast(monkeypatch):
    assert choose_backend("auto", CPU, *STRICT, "off") == "torch"
    assert choose_backend("auto", CPU, *FAST, "off") == "openvino"
    assert choose_backend("auto", CPU, torch.float32, "fast", "off") == "openvino"
    assert choose_backend("auto", CUDA, *FAST, "off") == "torch"
    assert choose_backend("auto", CPU, torch.float16, "fast", "off") == "torch"
    assert choose_backend("auto", CPU, *FAST, "encoder") == "torch"
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert choose_backend("auto", CPU, *FAST, "off") == "torch"
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    monkeypatch.setattr(backend, "has_openvino", lambda: False)
    assert choose_backend("auto", CPU, *FAST, "off") == "torch"


@NEEDS_OPENVINO
def test_an_encoder_that_nobody_restated_is_followed_as_it_is(tmp_path, monkeypatch):
    """And leaves none of the position encodings behind that upstream keeps."""
    batch = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    restated = load("nano", device="cpu", backend="openvino").model.frame_encoder(batch)
    monkeypatch.setattr(nested, "is_known", lambda encoder, image_size: False)
    monkeypatch.setattr(nested, "encode", None)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))  # nothing was converted before
    followed = load("nano", device="cpu", backend="openvino").model
    found = followed.frame_encoder(batch)
    assert followed.network.image_encoder.neck.position_encoding.cache == {}
    for ours, theirs in zip(found, restated, strict=True):
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("high_res", [True, False])
def test_what_is_followed_gives_the_levels_that_the_network_uses(monkeypatch, high_res):
    model = load("nano", device="cpu", seed=SEED).model
    monkeypatch.setattr(model.network, "use_high_res_features_in_sam", high_res)
    monkeypatch.setattr(model.network, "num_feature_levels", 3 if high_res else 1)
    batch = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = backend._restated(model)(batch), model.encode_frame(batch)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() < 5e-6 * theirs.abs().max()


@NEEDS_OPENVINO
def test_an_encoder_for_several_calls_at_a_time_gives_the_same():
    loaded = load("nano", device="cpu", backend="openvino").model
    batch = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    split = loaded.split_frame_encoder(2)
    assert split is loaded.split_frame_encoder(2)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(split, [batch, batch]))
    expected = loaded.frame_encoder(batch)
    for levels in found:
        for ours, theirs in zip(levels, expected, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)


@NEEDS_OPENVINO
@pytest.mark.usefixtures("one_thread")
def test_it_computes_with_the_threads_that_torch_has_when_it_is_loaded():
    model = load("nano", device="cpu", backend="openvino", dtype="bfloat16").model
    decoder = OpenVinoDecoder(model, Decoder(model)._decode_tokens)
    for run in (model.frame_encoder._run, decoder._compile()):
        assert run._compiled.get_property("INFERENCE_NUM_THREADS") == 1
        assert run._compiled.get_property("NUM_STREAMS") == 1


@NEEDS_OPENVINO
def test_threads_share_the_decoder_in_half_precision(pictures):
    """From its first full chunk on, which compiles it, whoever else asks at that moment."""
    executor = load("nano", device="cpu", seed=SEED, backend="openvino", dtype="bfloat16")
    embeddings = executor.embed(list(pictures.values())[:2])
    asked = [
        (embeddings[number % 2], prompts_of("boxes", 2 * DECODED_AT_ONCE + number, (0, 0)))
        for number in range(6)
    ]
    barrier = threading.Barrier(len(asked))

    def segment(item):
        barrier.wait()
        return [executor.segment([item])[0].low_res_logits for _ in range(3)]

    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(segment, asked))
    assert executor._decoder._forward._compiled is not None
    for item, found in zip(asked, together, strict=True):
        [alone] = executor.segment([item])
        for logits in found:
            np.testing.assert_array_equal(logits, alone.low_res_logits)


@pytest.mark.usefixtures("installed")
def test_what_is_asked_for_is_what_is_chosen():
    assert choose_backend("torch", CPU, *FAST, "off") == "torch"
    assert choose_backend("openvino", CPU, *STRICT, "off") == "openvino"
    with pytest.raises(ModelError, match=r"on the CPU, not on 'cuda'. Use device='cpu'"):
        choose_backend("openvino", CUDA, *FAST, "off")
    with pytest.raises(ModelError, match="in float32 or bfloat16, not in float16"):
        choose_backend("openvino", CPU, torch.float16, "fast", "off")
    with pytest.raises(ModelError, match="compile='all' is of torch, and backend 'openvino'"):
        choose_backend("openvino", CPU, *FAST, "all")


def test_what_is_not_there_is_refused(monkeypatch):
    with pytest.raises(ModelError, match=r"no backend 'openvin'. Did you mean 'openvino'"):
        load("nano", backend="openvin")
    monkeypatch.setattr("sam2_blocks.executor.backends.has_openvino", lambda: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'sam2-blocks\[openvino\]'"):
        load("nano", backend="openvino", device="cpu")


def fail(plan, kind=RuntimeError):
    raise kind("unsupported operation")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("kind", [RuntimeError, OSError, AttributeError, TypeError])
def test_auto_falls_back_with_one_line(monkeypatch, caplog, kind):
    monkeypatch.setattr(backend, "compile_plan", lambda plan: fail(plan, kind))
    with caplog.at_level(logging.WARNING):
        executor = load("nano", device="cpu", seed=SEED, dtype="bfloat16", backend="auto")
    assert executor.spec.backend == "torch"
    [record] = [r for r in caplog.records if r.name == loading.__name__]
    assert "'nano' here: unsupported operation. It is computed by torch instead" in record.message
    assert "openvino" not in executor.model.key


@pytest.mark.usefixtures("installed")
def test_openvino_that_cannot_is_an_error(monkeypatch):
    monkeypatch.setattr(backend, "compile_plan", fail)
    with pytest.raises(ModelError, match=r"unsupported operation. Use backend='torch' or"):
        load("nano", device="cpu", seed=SEED, backend="openvino")


@NEEDS_OPENVINO
def test_float32_is_the_embedding_of_torch(pictures):
    ours, theirs = (load("nano", device="cpu", seed=SEED, backend=b) for b in ("openvino", "torch"))
    images = list(pictures.values())
    for one, other in zip(ours.embed(images), theirs.embed(images), strict=True):
        assert one.key != other.key
        for name, level in other.tensors.items():
            assert one.tensors[name].stride() == level.stride()
            torch.testing.assert_close(one.tensors[name], level, atol=2e-5, rtol=0)


@NEEDS_OPENVINO
def test_an_embedding_of_one_backend_is_not_decoded_by_the_other():
    ours, theirs = (load("nano", device="cpu", seed=SEED, backend=b) for b in ("openvino", "torch"))
    [embedding] = ours.embed([sample_image()])
    with pytest.raises(ValueError, match="was made by 'nano@seed-7/float32-openvino'"):
        theirs.segment([(embedding, PromptSet.from_points([[5, 5]]))])


@NEEDS_OPENVINO
def test_bfloat16_rounds_as_little_as_that_of_torch(pictures):
    """On the trained network, whose features are large where random ones are not."""
    full = load("nano", device="cpu").embed([pictures["photo"]])[0].image_embed
    errors = {}
    for name in ("openvino", "torch"):
        half = load("nano", device="cpu", backend=name, dtype="bfloat16")
        assert half.spec.backend == name
        [found] = half.embed([pictures["photo"]])
        assert found.image_embed.dtype == torch.bfloat16
        errors[name] = float((found.image_embed.float() - full).norm() / full.norm())
    assert 0 < errors["openvino"] <= 1.5 * errors["torch"]


@NEEDS_OPENVINO
def test_tracking_encodes_with_the_backend():
    ours, theirs = (load("nano", device="cpu", backend=b) for b in ("openvino", "torch"))
    picture = sample_image()
    box = PromptSet.from_boxes([[2, 2, picture.hw[1] - 3, picture.hw[0] - 3]])
    found = []
    for executor in (ours, theirs):
        with executor.track() as session:
            session.step(picture, box)
            found.append(session.step(picture).prediction.low_res_logits)
    assert not np.array_equal(*found)  # rounded otherwise: it was not torch
    np.testing.assert_allclose(*found, atol=1e-3)


@NEEDS_OPENVINO
def test_tracking_in_half_precision_is_as_near_as_that_of_torch(pictures):
    image, box = pictures["photo"], PromptSet.from_boxes([[170, 40, 450, 470]])

    def follow(**options):
        with load("nano", device="cpu", **options).track() as session:
            session.step(image, box)
            return session.step(image).prediction.low_res_logits

    full = follow(backend="torch")
    errors = {
        name: np.linalg.norm(follow(backend=name, mode="fast", dtype="bfloat16") - full)
        for name in ("openvino", "torch")
    }
    assert errors["openvino"] != errors["torch"]  # rounded otherwise: it was not torch
    assert 0 < errors["openvino"] <= 2 * errors["torch"] < 0.2 * np.linalg.norm(full)


def prompts_of(kind: str, count: int, low_res_hw) -> PromptSet:
    """Boxes, clicks of one or three points, or boxes with masks."""
    rng = np.random.default_rng(count)
    corners = np.sort(rng.uniform(0, 60, (count, 2, 2)), 1).reshape(count, 4)
    boxes = PromptSet.from_boxes(corners)
    if kind == "boxes":
        return boxes
    if kind == "masks":
        mask = rng.normal(size=(1, *low_res_hw)).astype(np.float32)
        return PromptSet(tuple(replace(prompt, mask_input=mask) for prompt in boxes.prompts))
    points = 1 if kind == "a point" else 3
    coords = rng.uniform(0, 60, (count, points, 2)).astype(np.float32)
    labels = np.ones(points, np.int32)
    return PromptSet(tuple(Prompt(point_coords=xy, point_labels=labels) for xy in coords))


@NEEDS_OPENVINO
@pytest.mark.parametrize("pictures_asked", [1, 2])
@pytest.mark.parametrize("kind", ["boxes", "a point", "points", "masks"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_full_chunks_are_decoded_as_torch_decodes_them(pictures, kind, pictures_asked, dtype):
    executor = load("nano", device="cpu", seed=SEED, backend="openvino", dtype=dtype)
    embeddings = executor.embed(list(pictures.values())[:pictures_asked])
    low_res_hw, count = executor.model.low_res_hw, DECODED_AT_ONCE // pictures_asked
    rows = prompts_to_rows(
        [(embedding, prompts_of(kind, count, low_res_hw)) for embedding in embeddings],
        image_size=executor.model.image_size,
        low_res_hw=low_res_hw,
    )
    ours, theirs = Decoder(executor.model), Decoder(executor.model)
    assert isinstance(ours._forward, OpenVinoDecoder) == (dtype == "bfloat16")
    ours._forward = OpenVinoDecoder(executor.model, ours._decode_tokens)
    theirs._forward = theirs._decode_tokens
    tolerance = 1e-5 if dtype == "float32" else 0.1
    for asked in (rows, rows[:5]):
        found = ours.decode(asked, multimask_output=True)
        expected = theirs.decode(asked, multimask_output=True)
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape
            torch.testing.assert_close(one, other, atol=tolerance, rtol=0)
    assert ours._forward._compiled is not None


@NEEDS_OPENVINO
@pytest.mark.parametrize("kind", [RuntimeError, TypeError])
def test_a_decoder_that_cannot_be_converted_is_left_to_torch(monkeypatch, caplog, pictures, kind):
    executor = load("nano", device="cpu", seed=SEED, backend="openvino", dtype="bfloat16")
    [embedding] = executor.embed([pictures["photo"]])
    prompts = prompts_of("boxes", 2 * DECODED_AT_ONCE * torch.get_num_threads(), (0, 0))
    expected = executor.segment([(embedding, prompts)])[0]
    other = load("nano", device="cpu", seed=SEED, backend="openvino", dtype="bfloat16")
    monkeypatch.setattr(backend, "compile_plan", lambda plan: fail(plan, kind))
    found = other.segment([(embedding, prompts)])[0]
    assert "cannot compute the mask decoder of 'nano' here: unsupported" in caplog.text
    assert len([r for r in caplog.records if "mask decoder" in r.message]) == 1
    np.testing.assert_allclose(found.low_res_logits, expected.low_res_logits, atol=0.1)


@pytest.mark.parametrize("what", ["VERSION", "version_of"])
def test_what_other_code_converted_is_not_used(monkeypatch, what):
    """The files of the cache outlive an upgrade of `sam2`, and of this package."""
    model = load("nano", device="cpu", seed=SEED, dtype="bfloat16").model
    found = []

    def note(plan):
        found.append(plan.name)

    def name_both():
        found.clear()
        openvino_encoder(model)
        OpenVinoDecoder(model, Decoder(model)._decode_tokens)._compile()
        return set(found)

    monkeypatch.setattr(backend, "compile_plan", note)
    before = name_both()
    monkeypatch.setattr(backend, what, {"VERSION": -1, "version_of": lambda name: "0"}[what])
    assert len(before) == len(name_both()) == 2
    assert not before & name_both()


@NEEDS_OPENVINO
def test_the_encoder_is_held_once():
    ours, theirs = (load("nano", device="cpu", seed=SEED, backend=b) for b in ("openvino", "torch"))
    encoder = sum(p.nbytes for p in theirs.model.network.image_encoder.parameters())
    assert ours.nbytes == theirs.nbytes - encoder
