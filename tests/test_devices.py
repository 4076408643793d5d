from __future__ import annotations

import pytest

from sam2_blocks.devices import check_device


@pytest.mark.parametrize("name", ["auto", "cpu", "mps", "cuda", "cuda:12", "xpu:0"])
def test_devices_that_some_machine_has(name):
    assert check_device(name) == name


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cpu:0", "CUDA", "cuda:1\n"])
def test_devices_that_none_has(name):
    with pytest.raises(ValueError, match="there is no device"):
        check_device(name)
