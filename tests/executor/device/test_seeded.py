from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sam2_blocks.executor.device.seeded import Seeded
from sam2_blocks.executor.sam2.loading import NANO_FOLDER
from sam2_blocks.executor.weights.upstream import build_network, sam2_folder

CONFIGS = [NANO_FOLDER / "nano.yaml", sam2_folder() / "configs/sam2.1/sam2.1_hiera_t.yaml"]


def weights_of(network):
    return torch.cat([tensor.flatten().double() for tensor in network.state_dict().values()])


def seeded_weights(config, seed):
    with Seeded(seed):
        return weights_of(build_network(config))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_weights_are_those_of_the_global_seed(config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        expected = weights_of(build_network(config))
    assert torch.equal(seeded_weights(config, 11), expected)
    assert not torch.equal(seeded_weights(config, 12), expected)


def test_the_random_state_of_the_process_is_not_touched(monkeypatch):
    def forbidden(*_):
        raise AssertionError("the process's random state was set")

    for name in ("manual_seed", "set_rng_state"):
        monkeypatch.setattr(torch, name, forbidden)
        monkeypatch.setattr(torch.random, name, forbidden)
    before = torch.get_rng_state()
    seeded_weights(CONFIGS[0], 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_builds_in_parallel_give_the_same_weights():
    with ThreadPoolExecutor(4) as pool:
        drawing = pool.submit(lambda: [torch.rand(1000) for _ in range(300)])
        made = list(pool.map(lambda seed: seeded_weights(CONFIGS[0], seed), [5, 6, 5, 6, 5]))
        drawing.result()
    assert torch.equal(made[0], made[2])
    assert torch.equal(made[0], made[4])
    assert torch.equal(made[1], made[3])
    assert not torch.equal(made[0], made[1])
