from __future__ import annotations

import subprocess
import sys

import pytest

from sam2_blocks import heap


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the heap of glibc")
def test_holes_in_the_heap_are_given_back():
    if heap._find_trim() is None:
        pytest.skip("another allocator than that of glibc")
    pieces = [bytearray(100_000) for _ in range(2000)]
    pieces = pieces[::2]
    held = resident_bytes()
    pieces = pieces[::50]
    heap.give_back()
    assert held - resident_bytes() > 50_000_000
    assert len(pieces) == 20


def test_where_there_is_no_such_call_nothing_happens(monkeypatch):
    heap._find_trim.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    heap.give_back()
    heap.keep_at_hand()
    heap._find_trim.cache_clear()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the heap of glibc")
def test_what_comes_again_and_again_is_not_asked_of_the_system_again():
    """In a process of its own: what an allocator has learned, it does not forget."""
    if heap._find_trim() is None:
        pytest.skip("another allocator than that of glibc")
    work = "for _ in range(50): del [bytearray(2**20) for _ in range(16)][:]"
    count = "resource.getrusage(resource.RUSAGE_SELF).ru_minflt"
    script = f"""
import resource
from sam2_blocks.heap import keep_at_hand
keep_at_hand()
{work}
before = {count}
{work}
print({count} - before)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE)
    assert int(done.stdout) < 5000  # of 204,800 pages that are written to


def test_tidying_is_done_now_and_then(monkeypatch):
    given = []
    monkeypatch.setattr(heap, "give_back", lambda: given.append(1))
    monkeypatch.setattr(heap, "_tidied", 0.0)
    heap.tidy()
    heap.tidy()
    assert len(given) == 1
    monkeypatch.setattr(heap, "TIDY_S", 0.0)
    heap.tidy()
    assert len(given) == 2
