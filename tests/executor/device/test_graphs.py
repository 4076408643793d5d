"""When passes are recorded and kept; recording itself needs CUDA, see `test_cuda`."""

from __future__ import annotations

import torch

from sam2_blocks.executor.device.graphs import GraphedFunction


class Recorder:
    """Records by remembering the function."""

    def __init__(self) -> None:
        self.recorded: list[tuple[int, ...]] = []

    def __call__(self, function, inputs):
        self.recorded.append(tuple(inputs[0].shape))
        return Recording(function)


class Recording:
    def __init__(self, function) -> None:
        self._function = function

    def replay(self, inputs):
        return self._function(*inputs)


def double(tensor):
    return [2 * tensor]


def test_each_combination_of_shapes_is_recorded_once():
    recorder = Recorder()
    graphed = GraphedFunction(double, record=recorder)
    for size in (2, 3, 2, 3, 2):
        [answer] = graphed(torch.ones(size))
        assert torch.equal(answer, torch.full((size,), 2.0))
    assert recorder.recorded == [(2,), (3,)]


def test_another_dtype_or_layout_is_another_recording():
    recorder = Recorder()
    graphed = GraphedFunction(double, record=recorder)
    square = torch.rand(4, 4)
    for tensor in (square, square.t(), square.half(), square):
        graphed(tensor)
    assert len(recorder.recorded) == 3


def test_the_least_recently_used_recording_goes_first():
    recorder = Recorder()
    graphed = GraphedFunction(double, max_graphs=2, record=recorder)
    for size in (1, 2, 1, 3, 1, 2):
        graphed(torch.ones(size))
    assert recorder.recorded == [(1,), (2,), (3,), (2,)]
