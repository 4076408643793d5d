from __future__ import annotations

import threading
from contextvars import copy_context
from types import SimpleNamespace

import pytest

from sam2_blocks.clock import Clock, shares, stage


@stage("decode")
def decode():
    with stage("read"):
        pass


def test_a_stage_within_another_is_taken_out_of_it(monkeypatch):
    looks = iter([0, 1, 6, 8, 10, 12, 15, 16])  # into decode, into read, and out of both; twice
    monkeypatch.setattr("sam2_blocks.clock.time", SimpleNamespace(perf_counter=lambda: next(looks)))
    clock = Clock()
    with clock.running():
        decode()
        decode()
    assert clock.seconds == {"read": 5 + 3, "decode": 3 + 3}


def test_threads_add_to_the_clock_whose_context_they_have():
    clock, told = Clock(), []
    clock.listener = lambda name, begun, ended: told.append((name, ended >= begun))
    with clock.running():
        own, other = copy_context(), threading.Thread(target=decode)
        thread = threading.Thread(target=own.run, args=(decode,))
        for one in (thread, other):
            one.start()
            one.join()
    assert told == [("read", True), ("decode", True)]


def test_outside_of_a_run_nothing_is_noted_and_errors_pass():
    decode()
    clock = Clock()
    with pytest.raises(KeyError), clock.running(), stage("read"):
        raise KeyError
    assert list(clock.seconds) == ["read"]


def test_shares_are_of_the_work():
    assert shares({"read": 1.0, "embed": 3.0, "wait": 90.0}) == {"embed": 0.75, "read": 0.25}
    assert shares({}) == {}
