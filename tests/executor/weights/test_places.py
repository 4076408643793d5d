from __future__ import annotations

import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.weights import places
from sam2_blocks.executor.weights.places import checkpoint_in, find_checkpoint


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "other.pt"], "model.safetensors"),
        (["sam2.1_hiera_tiny.pt", "config.json"], "sam2.1_hiera_tiny.pt"),
    ],
)
def test_a_folder_has_one_checkpoint(tmp_path, names, chosen):
    assert checkpoint_in(touch(tmp_path, *names)) == tmp_path / chosen
    assert find_checkpoint(str(tmp_path)) == tmp_path / chosen


def test_a_folder_with_none_or_several_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"has no checkpoint: expected model\.safetensors, or one"):
        checkpoint_in(tmp_path)
    touch(tmp_path, "a.pt", "b.pth")
    with pytest.raises(ModelError, match=r"several checkpoints \(a\.pt, b\.pth\)\. Name one"):
        checkpoint_in(tmp_path)


def test_a_file_is_itself():
    assert str(find_checkpoint("./some/mine.pt")) == "some/mine.pt"


def test_a_misspelt_name_of_the_catalogue_is_not_of_the_hub():
    for name in ("hiera_tinny", "sam2.1/hiera_tinny"):
        with pytest.raises(ModelError, match=r"Did you mean '(sam2\.1/)?hiera_tiny'"):
            find_checkpoint(name)


@pytest.mark.parametrize("there", [["model.safetensors"], ["fine_tuned.pt"]])
def test_of_a_repository_the_preferred_file_is_fetched_alone(tmp_path, monkeypatch, there):
    asked = []

    def fetch(name, files, offline=None):
        asked.append((str(name), tuple(files)))
        wanted = [name for name in there if name in files or f"*.{name.split('.')[-1]}" in files]
        return touch(tmp_path, *wanted)

    monkeypatch.setattr(places, "fetch_repository", fetch)
    assert find_checkpoint("facebook/sam2.1-hiera-tiny@main").name == there[0]
    assert asked[0] == ("facebook/sam2.1-hiera-tiny@main", ("model.safetensors",))
    assert len(asked) == (1 if there == ["model.safetensors"] else 2)


def test_sam2_is_loaded_from_the_hubs_cache_without_a_network(tmp_path, monkeypatch):
    """The file of a repository, in the names of the transformers library, by its name alone."""
    import socket

    import numpy as np
    from safetensors.torch import save_file

    from sam2_blocks.executor import load
    from sam2_blocks.executor.weights.layouts import MEMORY_PREFIXES, to_transformers
    from sam2_blocks.values import Image

    pytest.importorskip("huggingface_hub")
    nano = load("nano", device="cpu")
    state = {
        name: tensor
        for name, tensor in nano.model.network.state_dict().items()
        if not name.startswith(MEMORY_PREFIXES)
    }
    snapshot = touch(tmp_path / "models--owner--nano" / "snapshots" / ("0" * 40))
    save_file(to_transformers(state, source="nano"), snapshot / "model.safetensors")
    refs = touch(tmp_path / "models--owner--nano" / "refs")
    (refs / "main").write_text("0" * 40)

    def connect(*arguments):
        raise AssertionError(f"tried to reach {arguments[1:]}")

    constants = __import__("importlib").import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("SAM2_BLOCKS_OFFLINE", "1")
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    executor = load("owner/nano", device="cpu")
    assert executor.spec.model == "owner/nano"
    assert executor.model.images_only
    image = Image(np.zeros((40, 50, 3), np.uint8))
    found, same = (e.embed([image])[0].image_embed for e in (executor, nano))
    assert found.equal(same)
