"""The image encoder with tokens in nested windows gives what the modules that it restates give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from ruamel.yaml import YAML
from torch import Tensor

from sam2_blocks.executor import load
from sam2_blocks.executor.device.seeded import Seeded
from sam2_blocks.executor.sam2 import nested
from sam2_blocks.executor.sam2.nested import _Order, _pool
from sam2_blocks.executor.weights.upstream import build_network, sam2_folder


@pytest.fixture(scope="module")
def network():
    return load("nano", device="cpu", seed=7).model.network


def noise(count: int, side: int) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count + side))


def assert_as_upstream(network, batch: Tensor) -> None:
    with torch.inference_mode():
        expected = network.forward_image(batch.clone())["backbone_fpn"]
        found = nested.encode(network, batch)
    assert [level.shape for level in found] == [level.shape for level in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() < 5e-6 * theirs.abs().max()


NARROW = {"embed_dim": 8, "stages": [1, 2, 5, 1], "global_att_blocks": [4, 6]}


@pytest.fixture(scope="module", params=["t", "s", "b+", "l"])
def narrow(request, tmp_path_factory):
    """A network with the windows and heads of a public one, of few blocks and channels."""
    source = sam2_folder() / "configs" / "sam2.1" / f"sam2.1_hiera_{request.param}.yaml"
    document = YAML(typ="safe").load(source)
    encoder = document["model"]["image_encoder"]
    encoder["trunk"].update(NARROW)
    encoder["neck"]["backbone_channel_list"] = [64, 32, 16, 8]
    path = tmp_path_factory.mktemp("narrow") / source.name
    YAML().dump(document, path)
    with Seeded(7):
        return build_network(path).eval().requires_grad_(False)


@pytest.mark.parametrize("side", [64, 96, 160, 224, 256, 288, 512])
def test_numbers_are_those_of_the_module(narrow, side):
    """Windows of 4, 7, 8, 14 and 16 tokens, some of which do not fill the picture."""
    assert nested.is_known(narrow.image_encoder, side)
    assert_as_upstream(narrow, noise(1, side))


def test_numbers_of_several_pictures_are_those_of_the_module(network):
    assert nested.is_known(network.image_encoder, 224)
    assert_as_upstream(network, noise(2, 224))


@pytest.mark.parametrize("levels", [[], [2], [2, 3], [1, 2, 3], [0, 2], [0, 1, 2, 3]])
def test_each_level_may_have_what_is_above_it_or_not(network, levels, monkeypatch):
    monkeypatch.setattr(network.image_encoder.neck, "fpn_top_down_levels", levels)
    assert_as_upstream(network, noise(1, 256))


def test_without_high_resolution_features_levels_are_the_pyramids(network, monkeypatch):
    monkeypatch.setattr(network, "use_high_res_features_in_sam", False)
    assert_as_upstream(network, noise(1, 256))


def test_a_batch_is_left_as_it_is(network):
    batch = noise(1, 256)
    before = batch.clone()
    with torch.inference_mode():
        nested.encode(network, batch)
    assert torch.equal(batch, before)


@pytest.mark.parametrize(
    ("block", "name", "value"),
    [
        (1, "q_stride", (1, 2)),
        (1, "q_stride", (4, 4)),
        (1, "window_size", 0),
        (1, "window_size", 7),
        (1, "dim_out", 96),
    ],
)
def test_another_pool_is_not_known(network, block, name, value, monkeypatch):
    blocks = network.image_encoder.trunk.blocks
    pooling = [block for block in blocks if block.q_stride]
    monkeypatch.setattr(pooling[block], name, value)
    assert not nested.is_known(network.image_encoder, 256)


@pytest.mark.parametrize(("side", "known"), [(32, True), (96, True), (240, False), (250, False)])
def test_a_pool_of_part_of_a_square_is_not_known(network, side, known):
    """Of 240 px, the last pool would take 15 by 15 tokens."""
    assert nested.is_known(network.image_encoder, side) == known


@pytest.mark.parametrize(
    ("name", "value"), [("kernel_size", (3, 3)), ("stride", (2, 2)), ("padding", (1, 1))]
)
def test_another_convolution_of_the_pyramid_is_not_known(network, name, value, monkeypatch):
    monkeypatch.setattr(network.image_encoder.neck.convs[0].conv, name, value)
    assert not nested.is_known(network.image_encoder, 256)


def test_another_pyramid_is_not_known(network, monkeypatch):
    monkeypatch.setattr(network.image_encoder.neck, "fuse_type", "avg")
    assert not nested.is_known(network.image_encoder, 256)


SIDES = [(16, 16, 8), (32, 16, 16), (16, 24, 4), (12, 20, 2), (28, 28, 14), (7, 7, 7), (6, 10, 0)]
BEYOND = [(10, 12, 8), (16, 16, 14), (5, 3, 4)]


@pytest.mark.parametrize("order", [_Order(*sides) for sides in SIDES + BEYOND])
def test_what_is_cut_is_joined_again(order):
    tokens = torch.randn(2, order.height, order.width, 3)
    rows = order.cut(tokens)
    assert torch.equal(order.join(rows), tokens)
    assert order.fits() == (rows.numel() == tokens.numel())
    assert rows.sum() == pytest.approx(float(tokens.sum()), abs=1e-3)  # zeros, beyond


def test_places_in_a_row_are_those_that_are_drawn():
    drawn = [[0, 4, 1, 5], [8, 12, 9, 13], [2, 6, 3, 7], [10, 14, 11, 15]]
    places = torch.tensor(drawn).view(1, 4, 4, 1)
    assert _Order(4, 4, 4).cut(places).flatten().tolist() == list(range(16))


@pytest.mark.parametrize("order", [_Order(*sides) for sides in SIDES if sides[2] > 2])
def test_a_row_is_a_window(order):
    """As upstream cuts them: the same tokens, in another order."""
    tokens = torch.randn(2, order.height, order.width, 1)
    window = order.window
    unfolded = F.unfold(tokens.permute(0, 3, 1, 2), window, stride=window)
    expected = unfolded.transpose(1, 2).reshape(-1, window**2)
    assert torch.equal(order.cut(tokens)[..., 0].sort().values, expected.sort().values)


@pytest.mark.parametrize(
    "order", [_Order(*sides) for sides in SIDES if sides[2] % 2 == 0 < sides[2]]
)
def test_a_pool_takes_the_greatest_of_neighbours_as_often_as_windows_can_be_halved(order):
    tokens = torch.randn(2, order.height, order.width, 3)
    rows = order.cut(tokens)
    while order.window % 2 == 0:
        rows, order = _pool(rows), order.pooled()
        tokens = F.max_pool2d(tokens.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        assert torch.equal(order.join(rows), tokens)
        assert torch.equal(order.cut(tokens), rows)
