from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from sam2_blocks.service.logits import LogitsCache
from sam2_blocks.testing import sample_embedding, sample_image
from sam2_blocks.values import MaskPrediction, Prompt, PromptSet

EMBEDDING = sample_embedding(sample_image())
BOX = (1, 2, 8, 9)
OTHER_BOX = (1, 2, 8, 10)


def prompt(*points, box=None):
    """A prompt; a point is (x, y) for foreground or (x, y, 0) for background."""
    coords = np.array([p[:2] for p in points], np.float32) if points else None
    labels = np.array([(*p, 1)[2] for p in points], np.int32) if points else None
    return Prompt(None if box is None else np.array(box, np.float32), coords, labels)


def save(cache, *prompts, embedding=EMBEDDING, first=1):
    """Keep logits that tell the prompts apart: all 1 for the first, all 2 for the second, …."""
    levels = np.arange(first, first + len(prompts), dtype=np.float32)
    logits = np.broadcast_to(levels[:, None, None], (len(prompts), 4, 4))
    prediction = MaskPrediction((8, 8), (), levels, logits, np.zeros((0, 4), np.int64))
    cache.save(embedding, PromptSet(prompts), prediction)


def found(cache, *prompts, embedding=EMBEDDING):
    """For each prompt the number of the prior it starts from, or None."""
    loaded = cache.load(embedding, PromptSet(prompts)).prompts
    return [None if p.mask_input is None else int(p.mask_input[0, 0, 0]) for p in loaded]


def test_a_prompt_starts_from_its_largest_strict_subset():
    cache = LogitsCache(10)
    save(cache, prompt((1, 1)), prompt((1, 1), (2, 2)), prompt((1, 1), (2, 2), (3, 3)))
    assert found(cache, prompt((1, 1), (2, 2), (3, 3), (4, 4))) == [3]
    assert found(cache, prompt((1, 1), (2, 2), (3, 3))) == [2]
    assert found(cache, prompt((1, 1), (5, 5))) == [1]
    assert found(cache, prompt((5, 5), (6, 6))) == [None]


def test_the_same_points_in_another_order_are_no_strict_subset():
    cache = LogitsCache(10)
    save(cache, prompt((1, 1), (2, 2)))
    assert found(cache, prompt((2, 2), (1, 1))) == [None]
    assert found(cache, prompt((3, 3), (2, 2), (1, 1))) == [1]


def test_a_label_is_part_of_its_point():
    cache = LogitsCache(10)
    save(cache, prompt((1, 1, 0)))
    assert found(cache, prompt((1, 1), (2, 2)), prompt((2, 2), (1, 1, 0))) == [None, 1]


def test_only_a_prior_with_the_same_box_counts():
    cache = LogitsCache(10)
    save(cache, prompt(box=BOX), prompt((1, 1), box=OTHER_BOX), prompt((1, 1)))
    assert found(cache, prompt((1, 1), (2, 2), box=BOX)) == [1]
    assert found(cache, prompt((1, 1), (2, 2), box=OTHER_BOX)) == [2]
    assert found(cache, prompt((1, 1), (2, 2))) == [3]
    assert found(cache, prompt(box=BOX)) == [None]


def test_each_prompt_of_a_set_finds_its_own_prior():
    """A greedy search that uses a prior once would leave the second prompt without."""
    cache = LogitsCache(10)
    save(cache, prompt((1, 1)), prompt((1, 1), (2, 2)))
    assert found(cache, prompt((1, 1), (2, 2), (3, 3)), prompt((1, 1), (4, 4))) == [2, 1]
    assert found(cache, prompt((1, 1), (4, 4)), prompt((1, 1), (2, 2), (3, 3))) == [1, 2]


def test_another_image_or_model_shares_nothing():
    cache = LogitsCache(10)
    save(cache, prompt((1, 1)))
    assert found(cache, prompt((1, 1), (2, 2)), embedding=replace(EMBEDDING, key="x")) == [None]


def test_a_point_twice_is_not_a_point_once():
    cache = LogitsCache(10)
    save(cache, prompt((1, 1)))
    assert found(cache, prompt((1, 1), (1, 1))) == [1]
    assert found(cache, prompt((1, 1))) == [None]


def test_no_prompts_find_nothing():
    cache = LogitsCache(10)
    save(cache, prompt((1, 1)))
    assert found(cache) == []


@pytest.mark.parametrize("most", [0, 1, 2])
def test_the_bound_is_the_most_it_holds(most):
    cache = LogitsCache(most)
    save(cache, prompt((1, 1)), prompt((2, 2)), prompt((3, 3)))
    assert len(cache) == most


def test_least_recently_used_goes_first():
    cache = LogitsCache(2)
    save(cache, prompt((1, 1)), prompt((2, 2)))
    assert found(cache, prompt((1, 1), (9, 9))) == [1]
    save(cache, prompt((3, 3)), first=3)
    assert found(cache, prompt((1, 1), (9, 9)), prompt((2, 2), (9, 9))) == [1, None]


def test_what_is_kept_owns_its_memory():
    cache = LogitsCache(1)
    save(cache, *(prompt((n, n)) for n in range(10)))
    [kept] = cache._entries.values()
    assert kept.base is None


def test_threads_that_save_and_load_get_only_logits_of_their_prompt():
    cache = LogitsCache(50)
    wrong: list[tuple[int, int | None]] = []
    start = threading.Barrier(8)

    def work(worker):
        rng = np.random.default_rng(worker)
        start.wait()
        for _ in range(300):
            number = int(rng.integers(1, 100))
            save(cache, prompt((number, 0), box=BOX), first=number)
            [level] = found(cache, prompt((number, 0), (0, number), box=BOX))
            if level not in (number, None):
                wrong.append((number, level))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache) == 50
    assert sum(len(family) for family in cache._families.values()) == 50


def test_a_point_given_twice_is_two_points():
    cache = LogitsCache(10)
    save(cache, prompt((1, 1), (1, 1)))
    assert found(cache, prompt((1, 1), (2, 2), (3, 3))) == [None]
    assert found(cache, prompt((1, 1), (1, 1), (2, 2))) == [1]
