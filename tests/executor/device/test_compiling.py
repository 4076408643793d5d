"""Compiled parts against the same parts as they are.

Inductor takes minutes for a network; a backend that only captures and lowers it tests the rest.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.device import compiling
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.loading import load_model
from sam2_blocks.values import Image, PromptSet

pytestmark = [
    # Torch's own modules, imported by its compiler.
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    # Torch's advice on the interpreter, given on 3.13.0 alone: what is compiled is the same.
    pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning"),
]


class Backend:
    """Runs what dynamo captures, and remembers it."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, graph, example_inputs):
        self.graphs.append(graph)
        return graph.forward


@pytest.fixture
def backend(monkeypatch, tmp_path) -> Backend:
    torch._dynamo.reset()
    backend = Backend()
    monkeypatch.setattr(compiling, "BACKEND", backend)
    monkeypatch.setenv("SAM2_BLOCKS_CACHE", str(tmp_path))
    monkeypatch.setenv(compiling.CACHE_VARIABLE, str(tmp_path / "theirs"))
    return backend


def executor(level: str) -> Sam2Executor:
    model = load_model("nano", device="cpu", seed=7, mode="fast", compile=level)
    return Sam2Executor(model, cache_bytes=0)


def pictures(count: int) -> list[Image]:
    rng = np.random.default_rng(0)
    return [Image(rng.integers(0, 256, (60, 80, 3), np.uint8), id=str(i)) for i in range(count)]


@pytest.mark.parametrize(("level", "graphs"), [("encoder", 1), ("all", 2)])
def test_compiled_parts_answer_like_the_parts_as_they_are(backend, level, graphs):
    plain, compiled = executor("off"), executor(level)
    backend.graphs.clear()  # the probe
    prompts = PromptSet.from_boxes([[10, 10, 50, 40], [5, 20, 70, 55], [0, 0, 79, 59]])
    predictions = []
    for one in (plain, compiled):
        one._workers = None  # all prompts in one chunk
        [embedding, *_] = one.embed(pictures(3))
        predictions.append(one.segment([(embedding, prompts)])[0])
    assert len(backend.graphs) == graphs
    ours, theirs = predictions
    np.testing.assert_allclose(ours.low_res_logits, theirs.low_res_logits, atol=0.05)
    np.testing.assert_allclose(ours.iou_prediction, theirs.iou_prediction, atol=0.01)


def test_a_frame_may_be_the_first_that_is_encoded(backend):
    model = load_model("nano", device="cpu", seed=7, dtype="bfloat16", compile="encoder")
    backend.graphs.clear()
    with Sam2Executor(model, cache_bytes=0).track() as session:
        answer = session.step(pictures(1)[0], PromptSet.from_boxes([[10, 10, 50, 40]]))
    assert len(answer.prediction.rles) == 1
    assert len(backend.graphs) == 1


def test_batches_are_filled_up_so_that_few_sizes_are_compiled(backend):
    compiled = executor("encoder")
    backend.graphs.clear()
    for count in (3, 4, 3):
        assert len(compiled.embed(pictures(count))) == count
    assert len(backend.graphs) == 1


def test_compiled_embeddings_have_keys_of_their_own(backend):
    assert executor("encoder").model.key == executor("off").model.key + "-compiled"


def test_mode_strict_refuses_to_compile():
    with pytest.raises(
        ModelError, match=r"compile='all' rounds differently, and mode 'strict' .* mode='fast'"
    ):
        load_model("nano", device="cpu", seed=1, compile="all")


def test_an_unknown_level_is_refused():
    with pytest.raises(ModelError, match=r"there is no compile='encode'. Did you mean 'encoder'\?"):
        load_model("nano", device="cpu", seed=1, mode="fast", compile="encode")


def test_without_a_compiler_loading_says_what_is_missing(backend, monkeypatch):
    def fail(graph, example_inputs):
        raise RuntimeError("no working C++ compiler found")

    monkeypatch.setattr(compiling, "BACKEND", fail)
    with pytest.raises(
        ModelError, match=r"compile='encoder' does not work here: .*such as g\+\+ and, on CUDA"
    ):
        executor("encoder")


def test_compiled_code_is_kept_in_our_cache_unless_the_user_has_another(backend, monkeypatch):
    executor("encoder")
    assert os.environ[compiling.CACHE_VARIABLE].endswith("theirs")
    monkeypatch.delenv(compiling.CACHE_VARIABLE)
    executor("encoder")
    ours = os.environ[compiling.CACHE_VARIABLE]
    assert ours == os.path.join(os.environ["SAM2_BLOCKS_CACHE"], "inductor")


FORKING = """
import os, sys, threading
import torch
from sam2_blocks.executor.device.compiling import compile_function

def end():
    os._exit(9)  # it waits for what is not in this process

torch.set_num_threads(2)
rows = torch.ones(9000)
compiled = compile_function(lambda batch: [batch.sin(), batch.sum().view(1)])
compiled(rows)
child = os.fork()
if child == 0:
    torch.set_num_threads(1)  # as `Workers` does
    watch = threading.Timer(60, end)
    watch.start()
    os._exit(0 if compiled(rows)[1].item() == 9000 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("compiler")
def test_a_forked_child_compiles_by_itself(tmp_path):
    folder = {compiling.CACHE_VARIABLE: str(tmp_path), "TORCHINDUCTOR_COMPILE_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", "-c", FORKING]
    assert subprocess.run(command, env={**os.environ, **folder}).returncode == 0
