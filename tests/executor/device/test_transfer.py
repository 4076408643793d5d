"""Copies between host and device; the way of CUDA is tested in `test_cuda`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_blocks.executor.device.transfer import Download, upload

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float32])
def test_arrays_of_any_strides_arrive_as_copies(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    array.setflags(write=False)
    for view in (array, array[:, ::-1], array.transpose(2, 0, 1), array[:0]):
        tensor = upload(view, CPU)
        assert np.array_equal(tensor.numpy(), view)
        assert tensor.numpy().dtype == dtype
        assert not np.shares_memory(tensor.numpy(), array)


def test_tensors_arrive_in_order():
    first, second = Download(torch.arange(3), torch.ones(2, 2)).arrays()
    assert first.tolist() == [0, 1, 2]
    assert second.tolist() == [[1, 1], [1, 1]]
