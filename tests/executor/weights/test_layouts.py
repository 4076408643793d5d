from __future__ import annotations

import pytest
import torch

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.device.seeded import Seeded
from sam2_blocks.executor.weights.checkpoint import read_checkpoint, recognise_architecture
from sam2_blocks.executor.weights.layouts import (
    from_transformers,
    is_of_transformers,
    lacks_memory,
    strip_training_prefixes,
    to_transformers,
)
from sam2_blocks.executor.weights.upstream import build_network, sam2_folder


@pytest.fixture(scope="module")
def official():
    """Seeded weights under the public names."""
    with Seeded(3):
        network = build_network(sam2_folder() / "configs/sam2.1/sam2.1_hiera_t.yaml")
    return network.state_dict()


@pytest.fixture(scope="module")
def theirs(torchvision_operators):
    """The classes of the transformers library."""
    pytest.importorskip("transformers")
    from sam2_blocks.executor.transformers.library import transformers

    return transformers()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_weights_go_there_and_back_bit_by_bit(official):
    renamed = to_transformers(official, source="a")
    assert is_of_transformers(renamed)
    assert not is_of_transformers(official)
    assert same(from_transformers(renamed, source="a"), official)


def test_the_librarys_class_takes_them_all_and_saves_what_we_read(official, theirs, tmp_path):
    model = theirs.Sam2VideoModel(theirs.Sam2VideoConfig())
    missing, unexpected = model.load_state_dict(to_transformers(official, source="a"), strict=True)
    assert not missing
    assert not unexpected
    model.save_pretrained(tmp_path)
    state = read_checkpoint(tmp_path / "model.safetensors")
    assert same(state, official)
    assert recognise_architecture(state) == "sam2.1/hiera_tiny"


def test_a_model_of_pictures_alone_has_no_memory(official, theirs, tmp_path):
    model = theirs.Sam2Model(theirs.Sam2Config())
    renamed = to_transformers(official, source="a")
    model.load_state_dict({name: renamed[name] for name in model.state_dict()}, strict=True)
    model.save_pretrained(tmp_path)
    state = read_checkpoint(tmp_path / "model.safetensors")
    assert lacks_memory(state)
    assert not lacks_memory(official)
    assert all(torch.equal(tensor, official[name]) for name, tensor in state.items())
    assert recognise_architecture(state) == "sam2.1/hiera_tiny"


def test_other_names_are_refused(official):
    renamed = to_transformers(official, source="a")
    strange = {**renamed, "text_encoder.a": torch.zeros(1), "vision_encoder.neck.b": torch.zeros(1)}
    message = r"mine has 2 tensors that SAM 2 .* does not have \(text_encoder\.a, vision_encoder"
    with pytest.raises(ModelError, match=message):
        from_transformers(strange, source="mine")
    with pytest.raises(ModelError, match=r"1 tensors .* \(head\)"):
        to_transformers({**official, "head": torch.zeros(1)}, source="mine")


def test_position_encodings_that_differ_are_refused(official):
    renamed = to_transformers(official, source="a")
    renamed["shared_image_embedding.positional_embedding"] += 1
    with pytest.raises(ModelError, match=r"differ; they must not"):
        from_transformers(renamed, source="a")


def test_one_position_encoding_is_enough(official):
    renamed = to_transformers(official, source="a")
    del renamed["prompt_encoder.shared_embedding.positional_embedding"]
    assert same(from_transformers(renamed, source="a"), official)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", ""])
def test_prefixes_of_training_are_taken_off(prefix):
    state = {"a.b": torch.zeros(1), "module": torch.ones(1)}
    wrapped = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    assert same(strip_training_prefixes(wrapped), state)


def test_a_prefix_of_some_names_is_part_of_them():
    state = {"module.a": torch.zeros(1), "b": torch.ones(1)}
    assert same(strip_training_prefixes(state), state)
    assert strip_training_prefixes({}) == {}
