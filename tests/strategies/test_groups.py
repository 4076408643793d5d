import pytest

from sam2_blocks.strategies.groups import map_groups


def test_results_come_in_the_order_of_the_items():
    calls = []

    def double(key, items):
        calls.append((key, items))
        return [item * 2 for item in items]

    assert map_groups([5, 2, 3, 4, 7], lambda n: n % 2, double) == [10, 4, 6, 8, 14]
    assert calls == [(1, [5, 3, 7]), (0, [2, 4])]


def test_nothing_calls_nothing():
    assert map_groups([], lambda n: n, lambda key, items: 1 / 0) == []


def test_a_function_answers_every_item():
    with pytest.raises(ValueError, match="shorter"):
        map_groups([1, 2], lambda n: 0, lambda key, items: [1])
