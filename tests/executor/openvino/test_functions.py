"""A function is what it was in torch, from memory and from disk, for many threads."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from sam2_blocks.executor.cache.compiled import compiled_path
from sam2_blocks.executor.openvino import functions
from sam2_blocks.executor.openvino.functions import Plan, compile_plan
from sam2_blocks.executor.weights.download import CACHE_VARIABLE
from tests.executor.conftest import wait_for

pytest.importorskip("openvino")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path / "openvino"


@pytest.fixture(scope="module")
def layer() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()).requires_grad_(False)


@pytest.fixture
def plan(layer) -> Plan:
    return Plan(
        function=lambda x, y: [layer(x) + y, y * 2],
        example=[torch.zeros(3, 8), torch.zeros(1, 8)],
        name="test",
        precision="f32",
        threads=2,
        network=layer,
    )


def inputs(rows: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return [torch.randn(rows, 8, generator=generator), torch.randn(1, 8, generator=generator)]


def assert_equal(found, expected) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_it_computes_what_the_function_computes(plan):
    assert_equal(compile_plan(plan)(*inputs()), plan.function(*inputs()))


def test_the_scope_of_the_caller_does_not_matter(plan):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = compile_plan(plan)(*inputs())
    assert_equal(found, plan.function(*inputs()))


def test_inputs_may_be_of_any_dtype_and_strides(plan):
    x, y = inputs()
    halves = [x.to(torch.bfloat16), y.to(torch.bfloat16)]
    strided = [x.T.contiguous().T, y]
    run = compile_plan(plan)
    assert_equal(run(*halves), plan.function(*(half.float() for half in halves)))
    assert_equal(run(*strided), plan.function(*strided))


def test_a_free_axis_takes_any_length(plan):
    run = compile_plan(replace(plan, free_axes=frozenset({(0, 0)})))
    for rows in (1, 5, 3):
        assert_equal(run(*inputs(rows)), plan.function(*inputs(rows)))


def test_results_are_the_callers_own(plan):
    run = compile_plan(plan)
    first = run(*inputs())
    kept = [one.clone() for one in first]
    run(*[x + 1 for x in inputs()])
    assert_equal(first, kept)


def test_threads_may_call_at_once(plan):
    run = compile_plan(replace(plan, streams=2))
    expected = [plan.function(*[x + i for x in inputs()]) for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: run(*[x + i for x in inputs()]), range(16)))
    for ours, theirs in zip(found, expected, strict=True):
        assert_equal(ours, theirs)


def test_it_computes_with_as_many_threads_as_are_asked_for(plan, folder):
    """Also from a file that a process with another number of them left."""
    compile_plan(replace(plan, threads=2, streams=2))
    run = compile_plan(replace(plan, threads=1, streams=1))
    assert run._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert run._compiled.get_property("NUM_STREAMS") == 1
    assert_equal(run(*inputs()), plan.function(*inputs()))
    assert len(list(folder.iterdir())) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("streams", [1, 2])
def test_a_forked_child_goes_on_with_what_its_parent_has_used(plan, streams):
    """The threads of streams are not there: it would wait for them for ever."""
    run = compile_plan(replace(plan, streams=streams))
    expected = run(*inputs())
    child = os.fork()
    if child == 0:
        found = [run(*inputs()) for _ in range(2)]
        os._exit(0 if all(map(torch.equal, expected * 2, found[0] + found[1])) else 1)
    assert wait_for(child) == 0
    assert_equal(run(*inputs()), expected)


PROCESS = """
import sys, torch
from pathlib import Path
from sam2_blocks.executor.openvino.functions import Plan, compile_plan
torch.manual_seed(0)
layer = torch.nn.Linear(8, 8).requires_grad_(False)
x = torch.ones(3, 8)
plan = Plan(lambda x: [layer(x)], [x], "shared", "f32", threads=1, network=layer)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    assert torch.allclose(compile_plan(plan)(x)[0], layer(x), atol=1e-5)
    for path in Path(sys.argv[1]).glob("*.blob"):
        path.unlink(missing_ok=True)
"""


def test_processes_may_share_the_folder_and_delete_what_is_in_it(folder):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", PROCESS, str(folder)]
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors
    assert not [path for path in folder.iterdir() if path.suffix != ".blob"]


def test_the_second_start_converts_nothing(monkeypatch, plan, folder):
    compile_plan(plan)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(functions, "_convert", lambda plan: pytest.fail("converted again"))
    assert_equal(compile_plan(plan)(*inputs()), plan.function(*inputs()))


def test_ctrl_c_while_a_weight_is_read_is_ctrl_c(plan, folder, monkeypatch):
    """OpenVINO would say of it that the network cannot be converted, or nothing at all."""
    decoder = importlib.import_module("openvino.frontend.pytorch.ts_decoder")
    read = decoder.TorchScriptPythonDecoder.try_decode_get_attr

    def interrupted(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)  # a thread that must handle it would do so here
        return read(self)

    with monkeypatch.context() as patch:
        patch.setattr(decoder.TorchScriptPythonDecoder, "try_decode_get_attr", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compile_plan(plan)
    assert not folder.exists()
    assert_equal(compile_plan(plan)(*inputs()), plan.function(*inputs()))


def test_what_differs_is_kept_apart(plan, folder):
    for other in (plan, replace(plan, name="other"), replace(plan, precision="bf16")):
        compile_plan(other)
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_damaged_on_disk_is_made_anew(plan, folder, caplog, whole):
    compile_plan(plan)
    [path] = folder.iterdir()
    if whole:  # nothing that OpenVINO wrote, under a checksum that is right
        path.unlink()
        functions.write_compiled(path, b"not a network")
    else:
        path.write_bytes(path.read_bytes()[:-100])
    assert_equal(compile_plan(plan)(*inputs()), plan.function(*inputs()))
    assert f"deleted the compiled network {path}" in caplog.text
    assert path == compiled_path(functions._identity(plan))
    assert path.stat().st_size > 1000


def test_the_file_is_no_memory_of_the_process_after_the_first_call(plan, monkeypatch):
    run, given = compile_plan(plan), []
    monkeypatch.setattr(functions, "page_out", given.append)
    run(*inputs())
    assert_equal(run(*inputs()), plan.function(*inputs()))
    assert len(given) == 1
    assert given[0] is run._exported


def test_memory_is_given_back_when_nobody_calls_for_a_while(plan, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(functions, "IDLE_S", 0.05)
    monkeypatch.setattr(functions, "give_back", released.set)
    run = compile_plan(plan)
    released.clear()
    assert_equal(run(*inputs()), plan.function(*inputs()))
    assert released.wait(120)
    assert not run._idle
    released.clear()
    assert_equal(run(*inputs()), plan.function(*inputs()))  # and it goes on
    assert released.wait(120)


def test_memory_is_kept_while_a_call_runs(plan, monkeypatch):
    looked = []
    run = compile_plan(plan)
    monkeypatch.setattr(functions, "give_back", lambda: pytest.fail("given back"))
    monkeypatch.setattr(functions, "_look_later", lambda _, seconds: not looked.append(seconds))
    with run._running():
        run.look()
        with run._running():
            run.look()
    run.look()  # too early
    assert looked[:2] == [functions.IDLE_S] * 2
    assert all(0 < seconds <= functions.IDLE_S for seconds in looked)


def test_a_process_that_starts_no_more_threads_has_its_results(plan, monkeypatch):
    """As one that ends while a thread computes; the next call tries to watch again."""
    run = compile_plan(plan)

    def refuse(timer):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Timer, "start", refuse)
        assert_equal(run(*inputs()), plan.function(*inputs()))
    assert not run._watched
    run(*inputs())
    assert run._watched


def test_a_folder_that_cannot_be_written_changes_no_result(plan, folder):
    folder.write_text("a file where the folder should be")
    assert_equal(compile_plan(plan)(*inputs()), plan.function(*inputs()))
