"""Linear layers in int8: what is rounded, that OpenVINO computes it, and who uses it when."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from sam2_blocks.errors import MissingExtraError, ModelError
from sam2_blocks.executor import load
from sam2_blocks.executor.backends import BACKEND_VARIABLE
from sam2_blocks.executor.openvino.calibrations import Calibration, keep_calibration
from sam2_blocks.executor.openvino.functions import CompiledFunction, Plan, compile_plan
from sam2_blocks.executor.sam2 import backend
from sam2_blocks.executor.sam2.int8 import linear_layers, measure_ranges, with_int8
from sam2_blocks.executor.sam2.loading import load_model
from sam2_blocks.executor.weights.download import CACHE_VARIABLE
from sam2_blocks.values import Image, PromptSet
from tests.executor.conftest import NEEDS_OPENVINO, SEED, calibrate_on_noise


class Encoder(torch.nn.Module):
    """What looks like an image encoder: two linear layers, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)
        self.trunk = torch.nn.Sequential(*layers, torch.nn.Conv1d(2, 2, 1)).requires_grad_(False)

    def run(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.trunk[:3](x)]


INPUTS = torch.tensor([[-1.0, 0.5, 0.0, 3.0], [0.25, 0.75, -0.5, 2.0]])


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a calibration of the network of `SEED`, and what OpenVINO made by it."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        calibrate_on_noise(seed=SEED)
        load("nano", device="cpu", seed=SEED, dtype="int8", backend="openvino")
    return folder


@pytest.fixture
def calibrated(prepared, own_folder) -> Calibration:
    """The calibration, in a folder of the test's own."""
    copytree(prepared, own_folder, dirs_exist_ok=True)
    return calibrate_on_noise(seed=SEED)


def test_ranges_are_of_all_that_each_layer_reads(encoder):
    ranges = measure_ranges(encoder, encoder.run, [INPUTS[:1], INPUTS[1:]])
    hidden = encoder.trunk[:2](INPUTS)
    assert ranges == {"0": (-1.0, 3.0), "2": (0.0, float(hidden.max()))}
    assert not encoder.trunk[0]._forward_pre_hooks


def test_inputs_have_256_steps_and_the_weights_of_each_output_255(encoder):
    layer, ranges = encoder.trunk[0], {"0": (-1.0, 3.0)}
    [found] = with_int8(lambda x: [layer(x)], encoder, ranges)(INPUTS)
    step = 4 / 255
    x = ((INPUTS / step).round() * step).double()
    steps = layer.weight.double().abs().amax(1, keepdim=True) / 127
    weight = (layer.weight.double() / steps).round() * steps
    torch.testing.assert_close(found.double(), x @ weight.T + layer.bias, atol=1e-6, rtol=0)
    assert not torch.equal(found, layer(INPUTS))


def test_some_rows_of_a_layer_are_rounded_as_the_layer_is(encoder):
    layer, ranges = encoder.trunk[0], {"0": (-1.0, 3.0)}
    bounds = (0, 1), (1, 3)

    def in_parts(x: torch.Tensor) -> list[torch.Tensor]:
        return [F.linear(x, layer.weight[a:b], layer.bias[a:b]) for a, b in bounds]

    [whole] = with_int8(lambda x: [layer(x)], encoder, ranges)(INPUTS)
    parts = with_int8(in_parts, encoder, ranges)(INPUTS)
    torch.testing.assert_close(torch.cat(parts, -1), whole, atol=1e-6, rtol=0)
    assert not torch.allclose(torch.cat(in_parts(INPUTS), -1), whole, atol=1e-4)


def test_rows_of_a_layer_that_was_made_in_inference_mode_are_rounded(encoder):
    """They do not know of which layer they are."""
    with torch.inference_mode():
        same = Encoder()
    results = []
    for one in (encoder, same):
        layer = one.trunk[0]
        function = lambda x, layer=layer: [F.linear(x, layer.weight[1:], layer.bias[1:])]  # noqa: E731
        with torch.no_grad():
            results += with_int8(function, one, {"0": (-1.0, 3.0)})(INPUTS)
    assert torch.equal(*results)
    assert not torch.allclose(results[0], encoder.trunk[0](INPUTS)[:, 1:], atol=1e-4)


def test_what_is_beyond_the_range_becomes_its_end(encoder):
    layer = encoder.trunk[0]
    run = with_int8(lambda x: [layer(x)], encoder, {"0": (-1.0, 3.0)})
    assert torch.equal(run(torch.full((1, 4), 99.0))[0], run(torch.full((1, 4), 3.0))[0])


def test_layers_without_a_range_and_calls_outside_are_as_they_were(encoder):
    before = encoder.run(INPUTS)[0]
    rounded = with_int8(encoder.run, encoder, {})(INPUTS)[0]
    assert torch.equal(rounded, before)
    assert not torch.equal(with_int8(encoder.run, encoder, {"0": (-1.0, 3.0)})(INPUTS)[0], before)
    assert torch.equal(encoder.run(INPUTS)[0], before)


def test_a_layer_that_reads_and_holds_nothing_but_zeros_is_no_error(encoder):
    encoder.trunk[0].weight.zero_()
    run = with_int8(lambda x: [encoder.trunk[0](x)], encoder, {"0": (0.0, 0.0)})
    torch.testing.assert_close(run(INPUTS)[0], encoder.trunk[0].bias.expand(2, 3))


@NEEDS_OPENVINO
def test_openvino_computes_in_int8_what_is_rounded(own_folder):
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, 96), torch.nn.GELU(), torch.nn.Linear(96, 32)
    encoder = SimpleNamespace(trunk=torch.nn.Sequential(*layers).requires_grad_(False))
    x = torch.randn(40, 64)
    ranges = measure_ranges(encoder, lambda x: encoder.trunk(x), [x])
    rounded = with_int8(lambda x: [encoder.trunk(x)], encoder, ranges)
    run = compile_plan(Plan(rounded, [x], "int8", "f32", threads=2, network=encoder.trunk))
    distance = (run(x)[0] - rounded(x)[0]).norm()
    assert distance < 0.2 * (encoder.trunk(x) - rounded(x)[0]).norm()
    products = precisions_of_products(run)
    assert len(products) == 2
    assert set(products) <= {"i8", "u8"}


@NEEDS_OPENVINO
@pytest.mark.usefixtures("calibrated")
def test_openvino_computes_all_linear_layers_of_the_trunk_in_int8():
    """Queries, keys and values are three products of one layer."""
    network = load_model("nano", device="cpu", seed=SEED).network
    blocks, layers = network.image_encoder.trunk.blocks, linear_layers(network.image_encoder)
    model = load("nano", device="cpu", seed=SEED, dtype="int8", backend="openvino").model
    products = precisions_of_products(model.frame_encoder._run)
    in_int8 = [precision for precision in products if precision in ("i8", "u8")]
    assert len(in_int8) == len(layers) + 2 * len(blocks)


def precisions_of_products(run: CompiledFunction) -> list[str]:
    """Name what each fully connected layer is computed in."""
    nodes = [node.get_rt_info() for node in run._compiled.get_runtime_model().get_ops()]
    return [
        str(node["runtimePrecision"].astype(str))
        for node in nodes
        if str(node["layerType"].astype(str)) == "FullyConnected"
    ]


@NEEDS_OPENVINO
def test_int8_is_for_models_that_are_calibrated(own_folder):
    with pytest.raises(
        ModelError,
        match=r"'nano' is not calibrated for dtype 'int8' on this machine. "
        r"Run: sam2-blocks models calibrate nano --pictures FOLDER --input-px 128, or use another",
    ):
        load("nano", device="cpu", dtype="int8", backend="openvino", input_px=128)
    calibrate_on_noise(seed=None)
    executor = load("nano", device="cpu", dtype="int8", backend="openvino")
    assert (executor.spec.dtype, executor.spec.backend) == ("int8", "openvino")
    with pytest.raises(ModelError, match="not calibrated"):  # of other weights
        load("nano", device="cpu", dtype="int8", seed=3, backend="openvino")


@NEEDS_OPENVINO
def test_a_calibration_of_other_layers_is_of_no_use(own_folder):
    weights = load_model("nano", device="cpu", seed=SEED).weights
    keep_calibration(Calibration(weights, {"blocks.0.attn.qkv": (0.0, 1.0)}, 1, {}))
    with pytest.raises(ModelError, match="not calibrated"):
        load("nano", device="cpu", dtype="int8", seed=SEED, backend="openvino")


@NEEDS_OPENVINO
def test_mode_fast_takes_int8_where_it_is_calibrated(own_folder, monkeypatch):
    monkeypatch.setattr(backend, "compile_plan", lambda plan: None)  # only what is chosen counts

    def dtype_of(**options):
        return load("nano", device="cpu", seed=SEED, mode="fast", **options).spec.dtype

    plain = dtype_of(backend="openvino")
    assert plain != "int8"
    calibrate_on_noise(seed=SEED)
    assert dtype_of(backend="openvino") == "int8"
    assert dtype_of(backend="torch") == plain
    assert dtype_of(backend="openvino", dtype=plain) == plain
    assert load("nano", device="cpu", seed=SEED, backend="openvino").spec.dtype == "float32"


def test_what_cannot_be_int8_is_refused():
    with pytest.raises(ModelError, match="dtype 'int8' is for mode 'fast', not 'strict'"):
        load("nano", device="cpu", dtype="int8", mode="strict")


def test_int8_by_torch_is_refused_with_what_would_do(monkeypatch):
    computed = "dtype 'int8' is computed by backend 'openvino'. Use it"
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
    with pytest.raises(ModelError, match=f"{computed} or backend='auto', or another dtype"):
        load("nano", device="cpu", dtype="int8", backend="torch")
    monkeypatch.setenv(BACKEND_VARIABLE, "torch")
    message = rf"{computed}, or another dtype \({BACKEND_VARIABLE} says that 'auto' is torch here\)"
    with pytest.raises(ModelError, match=message):
        load("nano", device="cpu", dtype="int8")


def test_int8_without_openvino_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("sam2_blocks.executor.backends.has_openvino", lambda: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'sam2-blocks\[openvino\]'"):
        load("nano", device="cpu", dtype="int8", backend="openvino")


@NEEDS_OPENVINO
def test_each_calibration_has_embeddings_of_its_own(calibrated, pictures):
    prompts = PromptSet.from_boxes([[100, 80, 400, 400]])
    first = load("nano", device="cpu", seed=SEED, dtype="int8", backend="openvino")
    [embedding] = first.embed([pictures["photo"]])
    assert calibrated.key in embedding.key
    wider = {name: (2 * low, 2 * high) for name, (low, high) in calibrated.ranges.items()}
    keep_calibration(Calibration(calibrated.weights, wider, 2, {}))
    second = load("nano", device="cpu", seed=SEED, dtype="int8", backend="openvino")
    assert second.embed([pictures["photo"]])[0].key != embedding.key
    with pytest.raises(ValueError, match="but this executor is"):
        second.segment([(embedding, prompts)])
    assert len(first.segment([(embedding, prompts)])[0]) == 1


@NEEDS_OPENVINO
@pytest.mark.usefixtures("calibrated")
def test_embeddings_of_int8_are_kept_on_disk_in_what_they_are_in(own_folder, pictures):
    options = {"device": "cpu", "seed": SEED, "backend": "openvino", "cache_dir": own_folder / "e"}
    first = load("nano", dtype="int8", **options)
    [computed] = first.embed([pictures["photo"]])
    first.flush_cache()
    second = load("nano", dtype="int8", **options)
    [restored] = second.embed([pictures["photo"]])
    assert second.cache_stats().tiers["disk"].hits == 1
    assert restored.spec == computed.spec
    assert torch.equal(restored.image_embed, computed.image_embed)


@NEEDS_OPENVINO
@pytest.mark.usefixtures("calibrated")
def test_threads_share_a_model_in_int8_and_half_precision():
    executor = load(
        "nano", device="cpu", seed=SEED, dtype="int8", backend="openvino", cache_bytes=0
    )
    images = [
        Image(np.random.default_rng(i).integers(0, 256, (90, 120, 3), np.uint8)) for i in range(8)
    ]
    alone = [executor.embed([image])[0].image_embed for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: executor.embed([image])[0].image_embed, images))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


@NEEDS_OPENVINO
@pytest.mark.usefixtures("calibrated")
def test_tracking_encodes_in_int8(pictures):
    executor = load("nano", device="cpu", seed=SEED, dtype="int8", backend="openvino")
    with executor.track() as session:
        session.step(pictures["photo"], PromptSet.from_boxes([[100, 80, 400, 400]]))
        assert len(session.step(pictures["photo"]).prediction) == 1


def test_the_layers_are_those_of_the_trunk():
    """The neck and the patches' convolution are none of them."""
    names = linear_layers(load_model("nano", device="cpu", seed=SEED).network.image_encoder)
    kinds = {name.split(".", 2)[-1] for name in names}
    assert kinds == {"attn.qkv", "attn.proj", "mlp.layers.0", "mlp.layers.1", "proj"}
