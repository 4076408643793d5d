"""A forked child, as a worker of torch's `DataLoader` is one, answers as its parent does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings

import pytest

from sam2_blocks import forks
from sam2_blocks.executor.weights.download import CACHE_VARIABLE
from tests.executor.conftest import BACKENDS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

SCRIPT = """
import os, sys, threading, warnings
import numpy as np
from sam2_blocks import Image, PromptSet, load_executor

warnings.simplefilter("ignore")  # Python's own, of forking with threads
executor = load_executor("nano", device="cpu", cache_dir=sys.argv[1], backend=sys.argv[2])
pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
prompts = PromptSet.from_boxes([[5, 5, 50, 60], [20, 20, 100, 80], [1, 1, 30, 30]])

def answer(pixels):
    [embedding] = executor.embed([Image(pixels, "a")])
    [prediction] = executor.segment([(embedding, prompts)])
    return [rle.counts.tolist() for rle in prediction.rles]

parents = answer(pixels)
held, forked = threading.Event(), threading.Event()
def hold():  # a thread that is at work on the device when the process forks
    with executor._device_lock, executor._cache._fast._lock:
        held.set(); forked.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if not child:
    new = 255 - pixels
    ok = answer(pixels) == parents and answer(new) != parents
    executor.flush_cache()
    os._exit(0 if ok else 1)
forked.set()
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_child_embeds_and_segments(tmp_path, monkeypatch, backend):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "compiled"))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "embeddings"), backend]
    run = subprocess.run(command, timeout=600, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_objects_that_are_gone_are_not_called(monkeypatch):
    monkeypatch.setattr(forks, "_rebuilders", [])
    called = []

    class Owner:
        def forget(self):
            called.append(self)

    kept, gone = Owner(), Owner()
    forks.after_fork(kept.forget)
    forks.after_fork(gone.forget)
    forks.after_fork(lambda: called.append("function"))
    del gone
    forks._rebuild_all()
    assert called == [kept, "function"]


def fork():
    """Fork as `os.fork` does, without Python's warning of forking with threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def succeeds(child):
    """Whether a child ended well; the test must not go on in it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def is_free(lock):
    """Whether another thread gets a lock at once."""
    got = threading.Event()

    def take():
        with lock.held():
            got.set()

    threading.Thread(target=take, daemon=True).start()
    return got.wait(2)


def test_a_lock_is_free_in_a_child_while_a_thread_of_the_parent_holds_it():
    lock, held, done = forks.ForkSafeLock(), threading.Event(), threading.Event()

    def hold():
        with lock.held():
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    try:
        child = fork()
        if not child:
            os._exit(0 if is_free(lock) else 1)
        assert succeeds(child)
        assert not is_free(lock)  # here it is held all the same
    finally:
        done.set()
        thread.join()
    assert is_free(lock)


def test_whoever_forks_inside_a_lock_leaves_it_on_both_sides():
    lock = forks.ForkSafeLock()
    with lock.held():
        child = fork()
    if not child:
        os._exit(0 if is_free(lock) else 1)
    assert succeeds(child)
    assert is_free(lock)


def test_an_error_inside_a_lock_leaves_it():
    lock = forks.ForkSafeLock()
    with pytest.raises(ZeroDivisionError), lock.held():
        _ = 1 / 0
    assert is_free(lock)
