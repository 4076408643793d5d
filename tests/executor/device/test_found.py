from __future__ import annotations

import torch

from sam2_blocks.executor.device.found import describe_devices


def test_the_cpu_comes_first_with_its_threads():
    assert describe_devices()[0] == f"cpu ({torch.get_num_threads()} threads)"
