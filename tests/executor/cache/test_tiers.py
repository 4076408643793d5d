from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sam2_blocks.executor.cache.files import EmbeddingFiles
from sam2_blocks.executor.cache.lru import CacheStats
from sam2_blocks.executor.cache.tiers import EmbeddingCache, copy_to_host
from sam2_blocks.values import Embedding, ExecutorSpec

SPEC = ExecutorSpec("nano", "cpu", "float32")
CPU = torch.device("cpu")
KEYS = [f"model/{number}" for number in range(10)]
SHAPES = {"image_embed": (1, 4, 4, 4)}


def embedding(key: str) -> Embedding:
    """256 bytes, the same for the same key."""
    generator = torch.Generator().manual_seed(int(key.rpartition("/")[2]))
    level = torch.randn((1, 4, 4, 4), generator=generator)
    return Embedding(level.to(memory_format=torch.channels_last), (), (8, 8), "", key, SPEC)


NBYTES = embedding(KEYS[0]).nbytes


class Encoder:
    """Makes embeddings and remembers which."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, keys: Sequence[str]) -> list[Embedding]:
        self.made += keys
        return [embedding(key) for key in keys]


MakeCache = Callable[..., EmbeddingCache]


@pytest.fixture
def make_cache(tmp_path) -> MakeCache:
    """``make_cache(2, 3, disk=4)``: how many embeddings fit in each tier; 0 is no tier."""

    def make(device: int, host: int, *, disk: int = 0, to: torch.device = CPU) -> EmbeddingCache:
        files = None
        if disk:
            files = EmbeddingFiles(
                tmp_path / "files",
                max_bytes=disk * 600,
                spec=SPEC,
                made_by="a test",
                shapes=SHAPES,
            )
        return EmbeddingCache(
            to,
            device_bytes=device * NBYTES,
            device_entries=100,
            host_bytes=host * NBYTES,
            files=files,
        )

    return make


def ask(cache: EmbeddingCache, encoder: Encoder, *numbers: int) -> None:
    """Ask one at a time and compare with what is computed."""
    for number in numbers:
        [found] = cache.get_many([KEYS[number]], encoder)
        assert_same(found, embedding(KEYS[number]))


def assert_same(found: Embedding, expected: Embedding) -> None:
    assert torch.equal(found.image_embed, expected.image_embed)
    assert found.image_embed.stride() == expected.image_embed.stride()
    assert (found.key, found.spec, found.image_hw) == (expected.key, SPEC, expected.image_hw)


def counts(stats: CacheStats) -> tuple[int, ...]:
    return (stats.hits, stats.misses, stats.evictions, stats.entries, stats.nbytes // NBYTES)


def test_what_leaves_the_device_is_found_in_host_memory(make_cache):
    cache, encoder = make_cache(1, 2), Encoder()
    ask(cache, encoder, 0, 1, 2)
    assert cache.stats().tiers["host"].entries == 2
    ask(cache, encoder, 0, 2)
    assert encoder.made == KEYS[:3]
    stats = cache.stats()
    assert list(stats.tiers) == ["device", "host"]
    assert counts(stats.tiers["device"]) == (0, 5, 4, 1, 1)
    assert counts(stats.tiers["host"]) == (2, 3, 1, 2, 2)
    assert counts(stats) == (2, 3, 5, 3, 3)


def test_what_nobody_asked_for_leaves_memory_but_not_the_disk(make_cache):
    cache, encoder = make_cache(1, 2, disk=4), Encoder()
    ask(cache, encoder, 0, 1, 2)
    cache.forget_unused()
    ask(cache, encoder, 2)
    cache.forget_unused()
    cache.flush()
    assert {name: tier.entries for name, tier in cache.stats().tiers.items()} == {
        "device": 1,
        "host": 0,
        "disk": 3,
    }
    ask(cache, encoder, 0)
    assert encoder.made == KEYS[:3]


def test_host_memory_drops_what_was_used_least_recently(make_cache):
    cache, encoder = make_cache(1, 2), Encoder()
    ask(cache, encoder, 0, 1, 2)  # 0 and 1 on the host
    ask(cache, encoder, 0)  # 2 follows, 1 goes
    ask(cache, encoder, 2)
    assert encoder.made == KEYS[:3]
    ask(cache, encoder, 1)
    assert encoder.made == [*KEYS[:3], KEYS[1]]


def test_without_room_on_the_device_host_memory_still_serves(make_cache):
    cache, encoder = make_cache(0, 2), Encoder()
    ask(cache, encoder, 0, 1, 0, 1)
    assert encoder.made == KEYS[:2]
    assert counts(cache.stats().tiers["device"]) == (0, 4, 0, 0, 0)


def test_without_other_tiers_the_device_is_all_there_is(make_cache):
    cache, encoder = make_cache(1, 0), Encoder()
    ask(cache, encoder, 0, 1, 0)
    assert encoder.made == [KEYS[0], KEYS[1], KEYS[0]]
    assert list(cache.stats().tiers) == ["device"]


def test_a_batch_is_put_together_from_all_tiers(make_cache):
    cache, encoder = make_cache(1, 1, disk=10), Encoder()
    ask(cache, encoder, 0, 1, 2)  # 2 on the device, 1 on the host, all on disk
    cache.flush()
    asked = [KEYS[number] for number in (3, 2, 0, 1, 3)]
    found = cache.get_many(asked, encoder)
    for key, one in zip(asked, found, strict=True):
        assert_same(one, embedding(key))
    assert encoder.made == KEYS[:4]
    cache.flush()
    hits = {name: tier.hits for name, tier in cache.stats().tiers.items()}
    assert hits == {"device": 2, "host": 1, "disk": 1}
    assert cache.stats().misses == 4
    assert cache.stats().tiers["disk"].entries == 4


def test_the_next_process_finds_everything_on_disk(make_cache):
    first, encoder = make_cache(1, 0, disk=10), Encoder()
    ask(first, encoder, 0, 1, 2)
    first.flush()
    second = make_cache(1, 1, disk=10)
    ask(second, encoder, 0, 1, 2, 1)
    assert encoder.made == KEYS[:3]
    assert second.stats().misses == 0
    hits = {name: tier.hits for name, tier in second.stats().tiers.items()}
    assert hits == {"device": 0, "host": 1, "disk": 3}


def test_what_left_memory_is_found_on_disk_until_it_leaves_that_too(make_cache):
    cache, encoder = make_cache(1, 1, disk=2), Encoder()
    for number in range(4):
        ask(cache, encoder, number)
        cache.flush()
    assert cache.find(KEYS[0]) is None
    assert cache.find(KEYS[3]) is not None
    assert cache.stats().tiers["disk"].evictions == 2


def test_a_damaged_file_costs_one_computation(make_cache, tmp_path, caplog):
    cache, encoder = make_cache(0, 0, disk=10), Encoder()
    ask(cache, encoder, 0)
    cache.flush()
    [path] = (tmp_path / "files").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    ask(cache, encoder, 0)
    assert re.search("deleted the cached embedding", caplog.text)
    cache.flush()
    ask(cache, encoder, 0)
    assert encoder.made == [KEYS[0]] * 2


def test_a_folder_that_cannot_be_used_fails_no_request(make_cache, tmp_path, caplog):
    (tmp_path / "files").write_text("in the way")
    cache = make_cache(0, 0, disk=10)
    assert re.search("no longer written", caplog.text)
    encoder = Encoder()
    ask(cache, encoder, 0, 0)
    assert encoder.made == [KEYS[0]] * 2


@pytest.mark.parametrize(("host", "disk"), [(1, 0), (0, 10)])
def test_find_looks_everywhere_and_computes_nothing(make_cache, host, disk):
    cache, encoder = make_cache(1, host, disk=disk), Encoder()
    assert cache.find(KEYS[0]) is None
    ask(cache, encoder, 0, 1)
    cache.flush()
    found = cache.find(KEYS[0])
    assert found is not None
    assert_same(found, embedding(KEYS[0]))
    assert cache.find(KEYS[0]) is found  # on the device again
    assert cache.stats().misses == 2


@pytest.mark.parametrize(("host", "disk"), [(0, 0), (1, 0), (0, 4)])
def test_what_any_tier_holds_is_known_and_not_counted(make_cache, host, disk):
    cache = make_cache(1, host, disk=disk)
    cache.get_many(KEYS[:2], Encoder())
    cache.flush()
    before = cache.stats()
    assert cache.holds(KEYS[1])
    assert cache.holds(KEYS[0]) == bool(host or disk)
    assert not cache.holds(KEYS[2])
    assert cache.stats() == before


def test_a_failure_is_raised_and_nothing_is_written(make_cache, tmp_path):
    cache = make_cache(1, 1, disk=1)

    def fail(keys):
        raise ValueError("bad picture")

    with pytest.raises(ValueError, match="bad picture"):
        cache.get_many(KEYS[:1], fail)
    cache.flush()
    assert list((tmp_path / "files").iterdir()) == []


def test_one_thread_reads_or_computes_for_all_who_ask(make_cache):
    writer = make_cache(1, 0, disk=10)
    ask(writer, Encoder(), 0)
    writer.flush()
    cache, encoder, start = make_cache(1, 1, disk=10), Encoder(), threading.Barrier(8)

    def work(_: int) -> list[Embedding]:
        start.wait()
        return cache.get_many(KEYS[:2], encoder)

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(work, range(8)):
            for key, one in zip(KEYS, found, strict=False):
                assert_same(one, embedding(key))
    assert encoder.made == [KEYS[1]]
    disk = cache.stats().tiers["disk"]
    assert (disk.hits, disk.misses) == (1, 1)


def test_many_threads_over_all_tiers_get_the_right_embeddings(make_cache):
    cache, encoder = make_cache(2, 3, disk=20), Encoder()

    def work(step: int) -> None:
        for turn in range(60):
            number = turn * step % 10
            if turn % 5 == 0:
                cache.find(KEYS[number])
            ask(cache, encoder, number, (number + 1) % 10)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, (1, 3, 7, 9)))
    cache.flush()
    stats = cache.stats()
    assert stats.misses == len(encoder.made)
    assert stats.hits + stats.misses >= 4 * 120
    tiers = stats.tiers
    assert (tiers["device"].entries, tiers["host"].entries) == (2, 3)
    assert (tiers["device"].nbytes, tiers["host"].nbytes) == (2 * NBYTES, 3 * NBYTES)
    assert tiers["disk"].entries == 10


def test_copies_on_the_host_keep_values_and_layout(make_cache):
    tensor = embedding(KEYS[0]).image_embed
    copied = copy_to_host(tensor)
    assert torch.equal(copied, tensor)
    assert copied.stride() == tensor.stride()


def test_embeddings_come_back_to_the_device_they_were_made_for(make_cache):
    cache = make_cache(0, 2, to=torch.device("meta"))  # has shapes and a place, but no values
    cache.get_many(KEYS[:1], Encoder())
    found = cache.find(KEYS[0])
    assert found is not None
    assert found.image_embed.device.type == "meta"
    assert found.image_embed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_memory_holds_what_leaves_a_gpu():
    level = torch.randn((1, 64, 256, 256), device="cuda").to(memory_format=torch.channels_last)
    pinned = copy_to_host(level)
    assert pinned.is_pinned()
    back = pinned.to("cuda", non_blocking=True)
    assert torch.equal(back, level)
    assert back.stride() == level.stride()
