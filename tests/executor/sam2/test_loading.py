from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sam2_blocks.errors import ModelError
from sam2_blocks.executor import load
from sam2_blocks.executor.sam2 import loading
from sam2_blocks.executor.sam2.encode import encode_batch
from sam2_blocks.executor.sam2.loading import load_model, resolve_device, resolve_dtype
from sam2_blocks.values import ExecutorSpec


def test_importing_the_executor_imports_no_torch():
    script = (
        "import sys, sam2_blocks.executor, sam2_blocks.executor.weights.catalogue,"
        "sam2_blocks.executor.weights.download; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_auto_takes_the_best_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
def test_there_is_one_cpu(name):
    assert resolve_device(name) == torch.device("cpu")
    with pytest.raises(ModelError, match="'cpu:1' is not available here"):
        resolve_device("cpu:1")


def test_a_dtype_of_torch_is_taken():
    device = torch.device("cpu")
    assert resolve_dtype(torch.float32, None, device) == (torch.float32, "strict")
    assert resolve_dtype(torch.bfloat16, None, device) == (torch.bfloat16, "fast")
    with pytest.raises(ModelError, match="no dtype 'int8'"):
        resolve_dtype(torch.int8, None, device)


def test_devices_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert resolve_device("cuda") == torch.device("cuda:1")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ModelError, match=r"'cuda:2' is not available here: torch .* sees 2 cuda"):
        resolve_device("cuda:2")
    with pytest.raises(ModelError, match="does not run on device 'xpu', but on CUDA, Apple's GPUs"):
        resolve_device("xpu")
    with pytest.raises(ModelError, match=r"no device 'cud'. Did you mean 'cuda'\?"):
        resolve_device("cud")


def test_mode_and_dtype_agree():
    device = torch.device("cuda")
    assert resolve_dtype("auto", None, device) == (torch.float32, "strict")
    assert resolve_dtype("auto", "fast", device) == (torch.bfloat16, "fast")
    assert resolve_dtype("float16", None, device) == (torch.float16, "fast")
    with pytest.raises(ModelError, match="mode 'strict' computes in float32, not 'bfloat16'"):
        resolve_dtype("bfloat16", "strict", device)
    with pytest.raises(ModelError, match=r"no dtype 'bf16'. Did you mean"):
        resolve_dtype("bf16", None, device)
    with pytest.raises(ModelError, match=r"no mode 'quick'"):
        resolve_dtype("auto", "quick", device)


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_fast_is_never_slower_for_want_of_bfloat16(monkeypatch, supported, dtype):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert resolve_dtype("auto", "fast", torch.device("cpu")) == (dtype, "fast")
    assert resolve_dtype("bfloat16", None, torch.device("cpu")) == (torch.bfloat16, "fast")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_stored_weights_are_those_autocast_would_make(monkeypatch, dtype):
    stored = load_model("nano", device="cpu", seed=1, dtype=dtype)
    monkeypatch.setattr(loading, "store_weights_as", lambda dtype, network, **_: None)
    converted = load_model("nano", device="cpu", seed=1, dtype=dtype)
    assert stored.network.sam_mask_decoder.conv_s0.weight.dtype == stored.dtype
    assert converted.network.sam_mask_decoder.conv_s0.weight.dtype == torch.float32
    size = stored.image_size
    batch = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(
        encode_batch(stored, batch), encode_batch(converted, batch), strict=True
    ):
        assert ours.dtype == stored.dtype
        assert torch.equal(ours, theirs)


def test_seeded_weights_are_reproducible_and_leave_the_random_state_alone():
    state = torch.random.get_rng_state()
    first, second, other = (load_model("nano", device="cpu", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.key == second.key != other.key
    weight = first.network.sam_mask_decoder.iou_token.weight
    assert torch.equal(weight, second.network.sam_mask_decoder.iou_token.weight)
    assert not torch.equal(weight, other.network.sam_mask_decoder.iou_token.weight)
    assert first.spec == ExecutorSpec("nano", "cpu", "float32")


def test_the_architecture_of_a_local_checkpoint_is_recognised_or_given(tmp_path):
    network = load_model("nano", device="cpu", seed=3).network
    path = tmp_path / "mine.safetensors"
    save_file(network.state_dict(), path)
    loaded = load_model(path, device="cpu", config="nano")
    token = loaded.network.sam_mask_decoder.iou_token.weight
    assert torch.equal(token, network.sam_mask_decoder.iou_token.weight)
    assert loaded.spec.model == str(path)
    yaml = loading.NANO_FOLDER / "nano.yaml"
    assert load_model(path, device="cpu", config=yaml).image_size == loaded.image_size
    assert load_model(path, device="cpu").key == loaded.key
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other\.safetensors' is of no architecture we know"):
        load_model(tmp_path / "other.safetensors")
    with pytest.raises(
        ModelError, match="config goes with a checkpoint of your own, not with 'nano'"
    ):
        load_model("nano", config="nano")


def test_a_config_file_of_other_content_has_another_key(tmp_path):
    path, config = tmp_path / "mine.safetensors", tmp_path / "mine.yaml"
    save_file(load_model("nano", device="cpu", seed=3).network.state_dict(), path)
    text = (loading.NANO_FOLDER / "nano.yaml").read_text()
    config.write_text(text)
    before = load_model(path, device="cpu", config=config).key
    assert load_model(path, device="cpu", config=config).key == before
    config.write_text(text.replace("image_size: 256", "image_size: 128"))
    assert load_model(path, device="cpu", config=config).key != before


def test_a_checkpoint_of_another_variant_is_refused(tmp_path):
    path = tmp_path / "nano.safetensors"
    save_file(load_model("nano", device="cpu", seed=0).network.state_dict(), path)
    with pytest.raises(ModelError, match=r"does not fit this architecture: \d+ keys missing"):
        load_model(path, device="cpu", config="hiera_tiny")


def test_nano_without_its_weights_says_so_in_the_log(monkeypatch, tmp_path, caplog):
    nano_folder(monkeypatch, tmp_path)
    executor = load("nano", device="cpu")
    assert "the embedded weights of 'nano' are missing" in caplog.text
    assert "seed-0" in executor.model.key


def test_nano_checks_its_weights(monkeypatch, tmp_path):
    nano_folder(monkeypatch, tmp_path)
    state = load_model("nano", device="cpu", seed=5).network.state_dict()
    save_file(
        {name: tensor.half() for name, tensor in state.items()}, tmp_path / "nano.safetensors"
    )
    sha256 = loading.sha256_of(tmp_path / "nano.safetensors")
    (tmp_path / "nano.json").write_text(json.dumps({"sha256": sha256}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sha256[:12] in load_model("nano", device="cpu").key
    (tmp_path / "nano.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(ModelError, match=r"is damaged: .* Reinstall sam2-blocks"):
        load_model("nano", device="cpu")


def nano_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A package folder with the configuration of nano and no weights."""
    (folder / "nano.yaml").write_text((loading.NANO_FOLDER / "nano.yaml").read_text())
    monkeypatch.setattr(loading, "NANO_FOLDER", folder)


@pytest.mark.parametrize("side", [32, 100, 8192, -64, "512", 512.0, True, None, float("nan")])
def test_a_size_that_cannot_be_is_refused(side):
    with pytest.raises(ModelError, match=f"a multiple of 32 from 64 to 4096, or 0 .* got {side!r}"):
        load("nano", device="cpu", seed=1, input_px=side)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_entries": float("nan")}, "cache_entries wants a whole number, 0 or more, got nan"),
        ({"cache_bytes": True}, "cache_bytes wants a whole number, 0 or more, got True"),
        ({"disk_cache_bytes": -1}, "disk_cache_bytes wants a whole number, 0 or more, got -1"),
        ({"host_cache_bytes": -1}, "host_cache_bytes wants a whole number, 0 or more, got -1"),
        ({"seed": "1"}, "seed wants a whole number, 0 or more, got '1'"),
        ({"cache_dir": 3}, "cache_dir wants the path of a folder, got 3"),
    ],
)
def test_bounds_are_checked_before_anything_loads(options, message):
    with pytest.raises(ModelError, match=message):
        load("no such model", **options)
