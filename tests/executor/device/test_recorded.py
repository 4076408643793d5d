from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from sam2_blocks.executor.device.recorded import record_function

INPUTS = torch.arange(6.0).view(2, 3)


def scaled(layer: nn.Linear):
    """A function whose way through Python depends on the shape of its tensor."""

    def run(batch):
        assert len(batch) == 2
        doubled = [layer(row) * 2 for row in batch]
        return [torch.stack(doubled), batch + 1]

    return run


def make_layer() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 3).requires_grad_(False)


def test_a_replay_is_the_function():
    run = scaled(make_layer())
    with torch.inference_mode():
        replay = record_function(run, torch.zeros(2, 3))
        for inputs in (INPUTS, INPUTS - 7):
            found, expected = replay(inputs), run(inputs)
            assert len(found) == 2
            assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_replay_runs_no_python():
    calls: list[int] = []
    with torch.inference_mode():
        replay = record_function(lambda batch: calls.append(1) or [batch * 2], INPUTS)
        for _ in range(3):
            assert replay(INPUTS)[0].tolist() == (INPUTS * 2).tolist()
    assert calls == [1]


def test_threads_replay_at_once():
    with torch.inference_mode():
        replay = record_function(scaled(make_layer()), INPUTS)
        expected = [replay(INPUTS + n)[0] for n in range(40)]

    def call(n: int) -> torch.Tensor:
        with torch.inference_mode():
            return replay(INPUTS + n)[0]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(call, range(40)))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_weights_are_freed_with_it():
    layer = make_layer()
    with torch.inference_mode():
        replay = record_function(scaled(layer), INPUTS)
        replay(INPUTS)
    weight = weakref.ref(layer.weight)
    del layer
    gc.collect()
    assert weight() is not None
    del replay
    gc.collect()
    assert weight() is None


def test_an_error_of_the_function_is_told_and_the_next_is_recorded():
    with pytest.raises(ZeroDivisionError):
        record_function(lambda batch: 1 / 0, INPUTS)
    assert record_function(lambda batch: [batch], INPUTS)(INPUTS)[0].tolist() == INPUTS.tolist()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("_create_graph_by_tracing", None),  # it is gone
        ("_create_graph_by_tracing", lambda function, inputs: None),  # it takes other arguments
        ("_create_function_from_graph", None),
    ],
)
def test_a_torch_that_cannot_record_runs_the_function(monkeypatch, caplog, name, other):
    caplog.set_level("INFO", logger="sam2_blocks")
    if other is None:
        monkeypatch.delattr(torch._C, name)
    else:
        monkeypatch.setattr(torch._C, name, other)
    run = scaled(make_layer())
    assert record_function(run, INPUTS) is run
    assert f"torch {torch.__version__} does not record here" in caplog.text
