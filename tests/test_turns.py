from __future__ import annotations

import sys

import pytest

from sam2_blocks.turns import TURN_S, short_turns


@pytest.fixture(autouse=True)
def turns():
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def test_turns_are_short_while_any_of_several_runs_is_under_way():
    sys.setswitchinterval(0.02)
    first, second = short_turns(), short_turns()
    first.__enter__()
    second.__enter__()
    assert sys.getswitchinterval() == pytest.approx(TURN_S)
    first.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(TURN_S)
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(0.02)


def test_what_is_shorter_or_somebody_else_set_meanwhile_stays():
    sys.setswitchinterval(TURN_S / 4)
    with short_turns():
        assert sys.getswitchinterval() == pytest.approx(TURN_S / 4)
        sys.setswitchinterval(0.03)
    assert sys.getswitchinterval() == pytest.approx(0.03)
