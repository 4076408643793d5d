from __future__ import annotations

import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.weights.catalogue import (
    DETECTORS,
    MODELS,
    find_model,
    is_catalogued,
    is_of_a_release,
)
from sam2_blocks.executor.weights.names import is_hub_name


def test_nano_and_the_eight_public_checkpoints():
    sizes = ("tiny", "small", "b_plus", "large")
    public = [f"{family}/hiera_{size}" for family in ("sam2.1", "sam2") for size in sizes]
    assert list(MODELS) == ["nano", *public]
    assert all(len(MODELS[name].sha256 or "") == 64 for name in public)


def test_a_short_name_means_sam2_1():
    assert find_model("hiera_tiny") is MODELS["sam2.1/hiera_tiny"]
    assert find_model("sam2/hiera_tiny").url.endswith("072824/sam2_hiera_tiny.pt")


def test_configurations_exist_in_the_installed_package():
    from sam2_blocks.executor.weights.upstream import sam2_folder

    for spec in MODELS.values():
        if not spec.embedded:
            assert (sam2_folder() / spec.config).is_file()


def test_an_unknown_name_suggests_the_closest():
    with pytest.raises(ModelError, match=r"no model 'hiera_tinny'. Did you mean 'hiera_tiny'\?"):
        find_model("hiera_tinny")


def test_detectors_to_offer_are_of_the_hub():
    assert all(model.family == "transformers" and not model.embedded for model in DETECTORS)
    assert all(is_hub_name(f"hub:{model.repository}") for model in DETECTORS)


def test_names_of_the_catalogue_are_known():
    assert is_catalogued("hiera_tiny")
    assert not is_catalogued("sam2.1/hiera_tinny")
    assert is_of_a_release("sam2.1/hiera_tinny")
    assert not is_of_a_release("facebook/sam2.1-hiera-tiny")
