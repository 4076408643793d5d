from __future__ import annotations

import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.requests import Sam2EmbeddingRequest
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.service.errors import UnknownModelError
from sam2_blocks.service.models import load_models
from sam2_blocks.testing import FakeExecutor


def serve(*names):
    return ServedModels({name: FakeExecutor(name) for name in names})


def model_of(models, **fields):
    request = Sam2EmbeddingRequest(image_id="a", **fields)
    return models.of_request(request).spec.model


def test_a_request_that_names_no_model_gets_the_first():
    assert model_of(serve("nano", "other")) == "nano"
    assert model_of(serve("nano"), sam2_version_id=None) == "nano"


@pytest.mark.parametrize(
    "fields",
    [
        {"sam2_version_id": "hiera_tiny"},
        {"model_id": "sam2/hiera_tiny"},
        {"sam2_version_id": "hiera_tiny", "model_version": "2.1"},
        {"model_id": "sam2.1/hiera_tiny"},
    ],
)
def test_names_of_the_contract_find_release_2_1(fields):
    models = serve("nano", "sam2/hiera_tiny", "sam2.1/hiera_tiny")
    assert model_of(models, **fields) == "sam2.1/hiera_tiny"


def test_release_2_0_is_found_when_asked_for_or_alone():
    both = serve("sam2.1/hiera_tiny", "sam2/hiera_tiny")
    asked = {"sam2_version_id": "hiera_tiny", "model_version": "2.0"}
    assert model_of(both, **asked) == "sam2/hiera_tiny"
    assert model_of(serve("sam2/hiera_tiny"), sam2_version_id="hiera_tiny") == "sam2/hiera_tiny"


def test_a_release_alone_is_that_of_the_default_model():
    models = serve("sam2.1/hiera_tiny", "sam2/hiera_tiny", "sam2/hiera_large")
    assert model_of(models, model_version="2.0") == "sam2/hiera_tiny"
    assert model_of(models, model_version="2.0", sam2_version_id=None) == "sam2/hiera_tiny"
    assert model_of(models, model_version="2.1") == "sam2.1/hiera_tiny"
    with pytest.raises(UnknownModelError, match=r"there is no model 'sam2/nano' here"):
        model_of(serve("nano"), model_version="2.0")


@pytest.mark.parametrize(
    "fields",
    [
        {"sam2_version_id": "hiera_lage"},
        {"model_id": "mine:other"},
        {"sam2_version_id": "hiera_large", "model_version": "2.0"},
    ],
)
def test_a_model_that_is_not_served_is_unknown(fields):
    with pytest.raises(UnknownModelError, match=r"there is no model .* here"):
        model_of(serve("sam2.1/hiera_large"), **fields)


def test_the_closest_name_is_suggested():
    with pytest.raises(UnknownModelError, match="Did you mean 'hiera_large'"):
        model_of(serve("hiera_large"), sam2_version_id="hiera_lage")


def test_pipelines_get_the_served_models_and_no_other():
    models = serve("nano")
    assert models.executor("nano", device="cpu") is models.default
    with pytest.raises(UnknownModelError, match="there is no model 'hiera_tiny' here"):
        models.executor("hiera_tiny")
    with pytest.raises(UnknownModelError, match="is served on 'cpu' in 'float32' here"):
        models.executor("nano", device="cuda")


def test_a_model_is_not_served_by_another_backend_or_at_another_size():
    models = serve("nano")
    assert models.executor("nano", backend="torch") is models.default
    with pytest.raises(UnknownModelError, match="computed by 'torch' here, at the size it was"):
        models.executor("nano", backend="openvino")
    with pytest.raises(UnknownModelError, match=r"not by 'auto' at 512 px. Leave backend and inp"):
        models.executor("nano", input_px=512)


def test_a_service_without_models_is_refused():
    with pytest.raises(ModelError, match="at least one model"):
        ServedModels({})


def test_models_are_loaded_under_the_names_asked_for():
    factories = {"fake": FakeExecutor}
    models = load_models(["fake:a", "hiera_large=fake:a"], factories, ServiceSettings())
    assert len(models.executors) == 1
    assert model_of(models, sam2_version_id="hiera_large") == "fake:a"
    assert models.names == ["fake:a", "hiera_large"]


def test_a_model_is_loaded_as_the_settings_say(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(
        "sam2_blocks.executor.load",
        lambda model, **options: asked.update(options) or FakeExecutor(model),
    )
    settings = ServiceSettings(
        compile="encoder",
        backend="auto",
        input_px=128,
        embedding_entries=3,
        embedding_bytes=5,
        embedding_host_bytes=7,
        embedding_dir=tmp_path,
        embedding_disk_bytes=9,
    )
    load_models(["nano"], {}, settings)
    assert asked == {
        "device": "auto",
        "dtype": "auto",
        "compile": "encoder",
        "backend": "auto",
        "input_px": 128,
        "cache_bytes": 5,
        "cache_entries": 3,
        "host_cache_bytes": 7,
        "cache_dir": tmp_path,
        "disk_cache_bytes": 9,
    }
