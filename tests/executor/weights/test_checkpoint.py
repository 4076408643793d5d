from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.sam2.loading import NANO_FOLDER
from sam2_blocks.executor.weights.catalogue import MODELS
from sam2_blocks.executor.weights.checkpoint import (
    apply_checkpoint,
    read_checkpoint,
    recognise_architecture,
)
from sam2_blocks.executor.weights.layouts import MEMORY_PREFIXES
from sam2_blocks.executor.weights.upstream import build_network, sam2_folder


class Opens:
    """An object that would run code when unpickled."""

    def __reduce__(self):
        return open, ("should-never-exist", "w")


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


@pytest.mark.parametrize("wrapped", [True, False])
def test_torch_files_hold_the_state_bare_or_under_model(state, wrapped, tmp_path):
    torch.save({"model": state} if wrapped else state, tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt").keys() == state.keys()


def test_safetensors_in_half_precision_fill_a_float32_network(state, tmp_path):
    save_file({name: tensor.half() for name, tensor in state.items()}, tmp_path / "a.safetensors")
    network = nn.Linear(3, 2)
    apply_checkpoint(network, read_checkpoint(tmp_path / "a.safetensors"), source="a")
    assert network.weight.dtype == torch.float32
    assert torch.equal(network.weight, torch.ones(2, 3))


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Opens()}, "a.pt")
    message = (
        r"a\.pt is not a readable checkpoint of plain tensors: it is damaged, or holds more than"
    )
    with pytest.raises(ModelError, match=message):  # and no advice to run it
        read_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "should-never-exist").exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"hi", b"Rate limit", b"not a checkpoint", pickle.dumps({"a": 1}, protocol=2)]
)
def test_garbage_is_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=r"is not a readable checkpoint|holds no state dict"):
        read_checkpoint(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no checkpoint at .*absent\.pt"):
        read_checkpoint(tmp_path / "absent.pt")


def test_differing_keys_and_shapes_are_named(state):
    network = nn.Linear(4, 2)
    before = network.weight.clone()
    wrong = {"weight": state["weight"], **{f"extra.{i}": state["bias"] for i in range(5)}}
    expected = (
        r"a\.pt does not fit this architecture: 1 keys missing \(bias\); "
        r"5 keys unexpected \(extra\.0, extra\.1, extra\.2, …\); "
        r"1 keys of another shape \(weight \(2, 3\) for \(2, 4\)\)"
    )
    with pytest.raises(ModelError, match=expected):
        apply_checkpoint(network, wrong, source="a.pt")
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_is_recognised_from_its_tensors(name):
    folder = NANO_FOLDER if MODELS[name].embedded else sam2_folder()
    network = build_network(folder / MODELS[name].config)
    assert recognise_architecture(network.state_dict()) == name


def test_other_tensors_are_not_recognised(state):
    assert recognise_architecture(state) is None


@pytest.mark.parametrize("name", ["model", "state_dict", "model_state_dict"])
def test_what_training_keeps_beside_the_weights_is_left_alone(state, name, tmp_path):
    wrapped = {f"module.{key}": tensor for key, tensor in state.items()}
    optimizer = {"state": {0: {"step": torch.tensor(3), "exp_avg": torch.ones(2)}}, "groups": [1]}
    torch.save({name: wrapped, "optimizer": optimizer, "epoch": 7, "loss": 0.5}, tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt").keys() == state.keys()


def test_weights_for_pictures_alone_leave_the_memory_as_it_was():
    network = build_network(NANO_FOLDER / "nano.yaml")
    state = {
        name: tensor + 1
        for name, tensor in network.state_dict().items()
        if not name.startswith(MEMORY_PREFIXES)
    }
    before = network.state_dict()["maskmem_tpos_enc"].clone()
    apply_checkpoint(network, state, source="a")
    after = network.state_dict()
    assert torch.equal(after["maskmem_tpos_enc"], before)
    assert all(torch.equal(after[name], tensor) for name, tensor in state.items())
    del state["no_mem_embed"]
    with pytest.raises(ModelError, match=r"1 keys missing \(no_mem_embed\)"):
        apply_checkpoint(network, state, source="a")
