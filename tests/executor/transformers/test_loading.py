from __future__ import annotations

import json
import shutil
import socket

import pytest

from sam2_blocks.errors import ModelError


@pytest.fixture
def copied(tiny_detector, tmp_path):
    """A folder that a test may damage."""
    return lambda name: shutil.copytree(tiny_detector(name), tmp_path / name)


@pytest.fixture
def loading(torchvision_operators):
    pytest.importorskip("transformers")
    from sam2_blocks.executor.transformers import loading

    return loading


def test_spec_says_what_was_asked_for(load, tiny_detector):
    spec = load("rt_detr_v2").spec
    assert spec[:4] == (str(tiny_detector("rt_detr_v2")), "cpu", "float32", "transformers")


def test_a_folder_is_loaded_without_asking_anybody(load, monkeypatch):
    def connect(*arguments):
        raise AssertionError(f"tried to reach {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    load("grounding_dino")


def test_a_model_that_detects_nothing_is_refused(loading, copied):
    folder = copied("rt_detr_v2")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["BertModel"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is a 'BertModel', which detects nothing"):
        loading.load(str(folder))


@pytest.mark.parametrize("text", ["[]", "{", "\xff"])
def test_what_is_no_configuration_is_refused(loading, copied, text):
    folder = copied("rt_detr_v2")
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match="is no configuration"):
        loading.load(str(folder))


def test_weights_that_leave_something_out_are_refused(loading, copied):
    from safetensors.torch import load_file, save_file

    folder = copied("rt_detr_v2")
    file = folder / "model.safetensors"
    state = load_file(file)
    gone = sorted(state)[0]
    del state[gone]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"do not fit its config.json: 1 keys are missing"):
        loading.load(str(folder))


def test_weights_of_another_shape_are_refused(loading, copied):
    folder = copied("rt_detr_v2")
    config = json.loads((folder / "config.json").read_text())
    config["decoder_ffn_dim"] = 12
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"could not load|of another shape"):
        loading.load(str(folder))


def test_a_folder_without_weights_is_refused(loading, copied):
    folder = copied("rt_detr_v2")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"could not load .*model.safetensors"):
        loading.load(str(folder))


def test_pickled_weights_are_not_opened(loading, copied):
    import torch
    from safetensors.torch import load_file

    folder = copied("rt_detr_v2")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="could not load"):
        loading.load(str(folder))


def test_a_folder_without_configuration_is_named(loading, tmp_path):
    with pytest.raises(ModelError, match=r"has no config.json. Expected a folder that save_pretr"):
        loading.load(str(tmp_path))


def test_a_name_that_means_nothing_is_refused(loading):
    with pytest.raises(ModelError, match="there is no model 'nothing'"):
        loading.load("nothing")
