from __future__ import annotations

import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.executor import CACHE_DIR_VARIABLE, load
from sam2_blocks.executor.backends import BACKEND_VARIABLE


def test_the_environment_names_the_folder_of_embeddings_unless_nothing_is_kept(
    monkeypatch, tmp_path
):
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "kept"))
    load("nano", device="cpu", seed=1)
    assert (tmp_path / "kept").is_dir()
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "not"))
    load("nano", device="cpu", seed=1, cache_bytes=0)
    assert not (tmp_path / "not").exists()


def test_a_model_that_is_not_known_is_named_with_the_closest():
    with pytest.raises(ModelError, match=r"hiera_tinny.*Did you mean '.*hiera_tiny'"):
        load("hiera_tinny", device="cpu")


def test_what_is_loaded_says_what_it_is():
    spec = load("nano", device="cpu", seed=1).spec
    assert (spec.device, spec.dtype) == ("cpu", "float32")
    assert spec.model.startswith("nano")


def test_the_environment_names_the_backend_where_nobody_does(monkeypatch):
    monkeypatch.setenv(BACKEND_VARIABLE, "openvin")
    with pytest.raises(ModelError, match=r"no backend 'openvin'. Did you mean 'openvino'"):
        load("nano", device="cpu", seed=1)
    assert load("nano", device="cpu", seed=1, backend="torch").spec.backend == "torch"
