from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sam2_blocks.executor.device.precision import TF32, SharedSwitch


class Setting:
    """A setting of the process, and every value it ever had."""

    def __init__(self, value: str) -> None:
        self.history = [value]

    def read(self) -> str:
        return self.history[-1]

    def write(self, value: str) -> None:
        self.history.append(value)


def test_the_setting_is_put_back_by_the_last_to_leave():
    setting = Setting("theirs")
    switch = SharedSwitch(setting.read, setting.write, "ours")
    with switch.held(changed=True):
        with switch.held(changed=True):
            assert setting.read() == "ours"
        assert setting.read() == "ours"
    assert setting.history == ["theirs", "ours", "theirs"]


def test_an_error_puts_it_back_too():
    setting = Setting("theirs")
    switch = SharedSwitch(setting.read, setting.write, "ours")
    with pytest.raises(RuntimeError), switch.held(changed=True):
        raise RuntimeError
    assert setting.read() == "theirs"


def test_whoever_needs_it_unchanged_never_sees_the_change():
    setting = Setting("theirs")
    switch = SharedSwitch(setting.read, setting.write, "ours")
    start = threading.Barrier(6)

    def work(thread: int) -> set[str]:
        seen = set()
        start.wait()
        for _ in range(200):
            with switch.held(changed=thread % 2 == 0):
                seen |= {setting.read() for _ in range(5)}
        return seen

    with ThreadPoolExecutor(6) as pool:
        seen = list(pool.map(work, range(6)))
    assert seen == [{"ours"}, {"theirs"}] * 3
    assert setting.read() == "theirs"


def test_tf32_is_allowed_inside_only():
    products = torch.backends.cuda.matmul
    if not hasattr(products, "fp32_precision"):  # torch before 2.9
        pytest.skip("another name for the setting")
    before = products.fp32_precision
    with TF32.held(changed=True):
        assert products.fp32_precision == "tf32" != before
    with TF32.held(changed=False):
        assert products.fp32_precision == before
    assert torch.get_float32_matmul_precision() == "highest"  # the legacy setting agrees again
