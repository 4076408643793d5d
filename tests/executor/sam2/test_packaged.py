from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sam2_blocks.executor.cache.compiled import PACKAGES, keep_compiled
from sam2_blocks.executor.sam2 import packaged
from sam2_blocks.executor.sam2.loading import load_model
from sam2_blocks.executor.sam2.packaged import (
    EncoderCode,
    PackagedEncoder,
    encoder_weights,
    find_encoder,
    run_packages,
)
from sam2_blocks.executor.weights.download import CACHE_VARIABLE

CODE = EncoderCode("an architecture", 0, torch.float32, torch.device("cpu"))


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path / PACKAGES


def test_a_package_is_for_one_architecture_size_dtype_batch_and_machine(monkeypatch, folder):
    path = CODE.path(1)
    assert path.parent == folder
    assert CODE.path(1) == path
    others = [
        CODE.path(2),
        replace(CODE, architecture="another").path(1),
        replace(CODE, input_px=512).path(1),
        replace(CODE, dtype=torch.bfloat16).path(1),
    ]
    monkeypatch.setattr(packaged, "describe_target", lambda device: "another machine")
    others.append(CODE.path(1))
    monkeypatch.setattr(packaged, "version_of", lambda name: "another version")
    others.append(CODE.path(1))
    assert len({path, *others}) == 7


def test_without_room_for_temporary_files_a_package_is_kept_and_that_said(monkeypatch, caplog):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packaged, "open_package", fail)
    keep_compiled(CODE.path(1), b"a package")
    assert find_encoder(CODE) == {}
    assert CODE.path(1).exists()
    assert "is not used: [Errno 28] No space left on device. Make room" in caplog.text


def test_what_is_no_package_is_deleted_and_said(caplog):
    assert find_encoder(CODE) == {}
    assert not caplog.text
    damaged, foreign = CODE.path(1), CODE.path(4)
    damaged.parent.mkdir()
    damaged.write_bytes(b"half of")
    keep_compiled(foreign, b"whole, but no package")
    assert find_encoder(CODE) == {}
    assert not damaged.exists()
    assert not foreign.exists()
    said = [record.getMessage() for record in caplog.records if "sam2_blocks" in record.name]
    assert len(said) == 2
    assert f"deleted the compiled network {damaged}: its content is not what" in said[0]
    assert f"deleted the compiled network {foreign}: " in said[1]


def test_where_packages_cannot_be_opened_none_are_looked_for(monkeypatch, folder):
    keep_compiled(CODE.path(1), b"a package of a later torch")
    monkeypatch.setattr(packaged, "find_package_problem", lambda device: "too old")
    assert find_encoder(CODE) == {}
    assert CODE.path(1).exists()


@pytest.mark.parametrize(
    ("sizes", "pieces"), [([1], [1] * 7), ([1, 4], [4, 1, 1, 1]), ([1, 2, 16], [2, 2, 2, 1])]
)
def test_a_batch_is_split_into_few_packaged_sizes(sizes, pieces):
    seen = []

    def run(batch: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(batch))
        return [batch * 2, batch.sum((1, 2, 3))]

    batch = torch.arange(7 * 12.0).view(7, 3, 2, 2)
    doubled, sums = PackagedEncoder(run, sizes)(batch)
    assert seen == pieces
    assert torch.equal(doubled, batch * 2)
    assert torch.equal(sums, batch.sum((1, 2, 3)))


def test_each_size_runs_its_package_with_the_networks_weights():
    network = load_model("nano", device="cpu", seed=1).network
    weights = encoder_weights(network)
    given = []

    def package(*tensors: torch.Tensor) -> list[torch.Tensor]:
        given.append(tensors)
        return [tensors[0]]

    run_packages({3: package}, network)(torch.zeros(3, 3, 8, 8))
    [(batch, *tensors)] = given
    assert len(batch) == 3
    named = dict(network.named_parameters())
    assert all(ours is theirs for ours, theirs in zip(tensors, weights.values(), strict=True))
    assert {name for name in named if name.startswith("image_encoder.")} < set(weights)
    assert "sam_mask_decoder.conv_s0.weight" in weights
    assert "sam_mask_decoder.iou_token.weight" not in weights
