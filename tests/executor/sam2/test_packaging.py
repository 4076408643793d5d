"""The encoder of ``nano``, compiled ahead of time once, for all tests of this file."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from sam2_blocks.errors import ModelError
from sam2_blocks.executor import load
from sam2_blocks.executor.device import compiling
from sam2_blocks.executor.sam2 import packaging
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.packaging import (
    Made,
    check_batches,
    load_for_packages,
    package_encoder,
)
from sam2_blocks.executor.weights.download import CACHE_VARIABLE, cache_dir
from sam2_blocks.masks.rle import rle_iou
from sam2_blocks.values import Image, MaskPrediction, PromptSet

# Torch's own modules, imported by its compiler.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

BOXES = [[100, 80, 400, 400], [20, 30, 200, 300], [300, 100, 600, 450]]
ANOTHER_PROCESS = """
import sys
import torch
from sam2_blocks.executor import load
from sam2_blocks.values import Image
import numpy as np
torch.compile = None  # nothing may be compiled
pixels = np.load(sys.argv[1])
executor = load("nano", device="cpu", mode="fast", compile="encoder", backend="torch")
[embedding] = executor.embed([Image(pixels)])
np.save(sys.argv[2], embedding.image_embed.float().numpy())
"""


@pytest.fixture(scope="module")
def made(compiler: None) -> Made:
    return package_encoder(load_for_packages("nano", device="cpu"), 1)


def fast(level: str) -> Sam2Executor:
    return load("nano", device="cpu", mode="fast", compile=level, backend="torch", cache_bytes=0)


def segment(executor: Sam2Executor, picture: Image) -> MaskPrediction:
    [embedding] = executor.embed([picture])
    return executor.segment([(embedding, PromptSet.from_boxes(BOXES))])[0]


def test_the_package_lies_in_the_cache_and_computes_what_torch_does(made):
    assert made.path.parent == cache_dir() / "packages"
    assert made.nbytes == made.path.stat().st_size < 10e6
    assert made.seconds > 0
    assert made.difference < 0.03


def test_what_was_compiled_is_not_compiled_again(monkeypatch, made):
    monkeypatch.setattr(packaging, "compile_package", None)
    again = package_encoder(load_for_packages("nano", device="cpu"), 1)
    assert again.seconds == 0
    assert again.path == made.path


def test_its_masks_are_those_of_torch(made, pictures):
    plain, ahead = fast("off"), fast("encoder")
    assert list(ahead.model.packages) == [1]
    assert ahead.model.key == f"{plain.model.key}-packaged"
    ours, theirs = (segment(one, pictures["photo"]) for one in (ahead, plain))
    assert all(rle_iou(a, b) > 0.97 for a, b in zip(ours.rles, theirs.rles, strict=True))
    np.testing.assert_allclose(ours.iou_prediction, theirs.iou_prediction, atol=0.03)


def test_batches_are_put_together_of_what_is_packaged(made, pictures):
    executor = fast("encoder")
    several = executor.embed(list(pictures.values()))
    for picture, embedding in zip(pictures.values(), several, strict=True):
        [alone] = executor.embed([picture])
        assert torch.equal(alone.image_embed, embedding.image_embed)
        for one, other in zip(alone.high_res_feats, embedding.high_res_feats, strict=True):
            assert torch.equal(one, other)


def test_frames_of_a_video_are_encoded_by_the_same_package(made, pictures):
    prompts = PromptSet.from_boxes(BOXES[:1])
    found = []
    for level in ("off", "encoder"):
        with fast(level).track() as session:
            session.step(pictures["photo"], prompts)
            found.append(session.step(pictures["photo"]).prediction.rles[0])
    assert rle_iou(*found) > 0.97


def test_the_decoder_is_compiled_beside_a_package(monkeypatch, made, pictures):
    graphs = []
    monkeypatch.setattr(
        compiling, "BACKEND", lambda graph, example: graphs.append(graph) or graph.forward
    )
    executor = fast("all")
    assert len(graphs) == 1  # the probe
    graphs.clear()
    embeddings = executor.embed(list(pictures.values())[:2])
    assert not graphs
    answer = executor.segment([(embeddings[0], PromptSet.from_boxes(BOXES))])
    assert len(answer[0].rles) == len(BOXES)
    assert graphs


def test_another_process_compiles_nothing(made, pictures, tmp_path):
    given, found = tmp_path / "picture.npy", tmp_path / "embedding.npy"
    np.save(given, pictures["photo"].pixels)
    subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, given, found], check=True)
    [expected] = fast("encoder").embed([pictures["photo"]])
    assert np.array_equal(np.load(found), expected.image_embed.float().numpy())


def test_other_checkpoints_share_the_package_and_other_sizes_do_not(made):
    assert load_for_packages("nano", device="cpu").code.path(1) == made.path
    assert not load_for_packages("nano", device="cpu", input_px=128).code.path(1).exists()
    assert not load_for_packages("nano", device="cpu", dtype="float16").code.path(1).exists()


def _spoil(levels: list[torch.Tensor], factor: float) -> list[torch.Tensor]:
    """Spoil the last level alone: every one of them counts."""
    return [*levels[:-1], factor * levels[-1]]


@pytest.mark.parametrize(("factor", "said"), [(2, "1"), (float("nan"), "nan")])
def test_what_computes_something_else_is_not_kept(monkeypatch, tmp_path, factor, said):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    loaded = load_for_packages("nano", device="cpu")
    monkeypatch.setattr(packaging, "compile_package", lambda *_: b"exported")
    monkeypatch.setattr(
        packaging,
        "open_package",
        lambda exported, device: lambda batch, *_: _spoil(loaded.encode_frame(batch), factor),
    )
    with pytest.raises(
        ModelError, match=rf"batches of 1 computes other features than torch, by {said}"
    ):
        package_encoder(loaded, 1)
    assert not loaded.code.path(1).exists()


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_compiled(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "full"))
    loaded = load_for_packages("nano", device="cpu")
    monkeypatch.setattr(packaging, "compile_package", None)
    (tmp_path / "full").write_text("a file where the folder should be")
    with pytest.raises(ModelError, match=r"is not kept in .*packages: .* Free space there"):
        package_encoder(loaded, 1)


def test_a_package_without_room_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "full"))
    loaded = load_for_packages("nano", device="cpu")
    monkeypatch.setattr(packaging, "compile_package", lambda *_: b"exported")
    monkeypatch.setattr(
        packaging,
        "open_package",
        lambda exported, device: lambda batch, *_: loaded.encode_frame(batch),
    )

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packaging, "keep_compiled", fail)
    with pytest.raises(ModelError, match=r"is not kept in .*packages: .*No space left.* Free"):
        package_encoder(loaded, 1)


def test_what_cannot_be_packaged_is_said_before_anything_loads():
    with pytest.raises(ModelError, match="mode 'strict' promises the masks"):
        load_for_packages("no such model", device="cpu", mode="strict")
    with pytest.raises(ModelError, match="no model 'nanoo'"):
        load_for_packages("nanoo", device="cpu")
    with pytest.raises(ModelError, match=r"batches wants numbers .* 1 to 16, got 17"):
        check_batches([4, 17])
    assert check_batches([4, 2, 4]) == [1, 2, 4]
