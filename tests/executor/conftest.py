"""One network of each kind, three real pictures, and the official predictor to compare with.

What asks for `nano` runs on every backend that is installed, and with OpenVINO in int8, too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from sam2_blocks.executor import load
from sam2_blocks.executor.backends import BACKEND_VARIABLE, has_openvino
from sam2_blocks.executor.openvino.calibrations import (
    Calibration,
    find_calibration,
    keep_calibration,
)
from sam2_blocks.executor.sam2 import loading
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.sam2.int8 import measure_ranges
from sam2_blocks.executor.weights.download import CACHE_VARIABLE
from sam2_blocks.values import Embedding, Image

SEED = 7
SIZES_WH = {"photo": (640, 480), "odd": (1279, 853), "panorama": (480, 1920)}
# What torchvision's compiled library defines; `import torchvision` fails without them where that
# library does not load. The official predictor needs torchvision's Python code only.
TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
NEEDS_OPENVINO = pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")
BACKENDS = ("torch", pytest.param("openvino", marks=NEEDS_OPENVINO))
WAYS = (*BACKENDS, pytest.param("int8", marks=NEEDS_OPENVINO))


surroundings = pytest.MonkeyPatch()
own_folder = TemporaryDirectory(prefix="sam2-blocks-tests-")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What tests compile is kept for the tests alone; what names no backend is torch.

    A fixture of the session would say so to the tests of other rooms, too, which come after these
    in the same process; one of a test would come after the networks, which are of the session.
    """
    surroundings.setenv(BACKEND_VARIABLE, "torch")
    surroundings.setenv(CACHE_VARIABLE, own_folder.name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    try:
        yield
    finally:
        surroundings.undo()


@pytest.fixture(scope="session", params=WAYS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def load_nano(backend: str) -> Callable[..., Sam2Executor]:
    """`load` for the smallest network on this backend."""
    if backend == "int8":
        return load_int8
    return partial(load, "nano", device="cpu", backend=backend)


def load_int8(*, dtype: str = "int8", **options: Any) -> Sam2Executor:
    """`load` for the smallest network in int8, what is not in it in float32.

    Its weights are calibrated on noise, once.
    """
    with pytest.MonkeyPatch.context() as patch:
        if dtype == "int8":
            patch.setattr(loading, "has_fast_bfloat16", lambda device: False)
            weights = weights_of_nano(options.get("seed"), options.get("input_px", 0))
            if find_calibration(weights) is None:
                calibrate_on_noise(seed=options.get("seed"), input_px=options.get("input_px", 0))
        return load("nano", device="cpu", backend="openvino", dtype=dtype, **options)


@cache
def weights_of_nano(seed: int | None, input_px: int) -> str:
    """What a calibration is found by."""
    return loading.load_model("nano", device="cpu", seed=seed, input_px=input_px).weights


def calibrate_on_noise(**options: Any) -> Calibration:
    """Calibrate the smallest network, unless it is."""
    strict = loading.load_model("nano", device="cpu", **options)
    found = find_calibration(strict.weights)
    if found is None:
        side = strict.image_size
        batch = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        ranges = measure_ranges(strict.network.image_encoder, strict.encode_frame, [batch])
        found = Calibration(strict.weights, ranges, 2, {})
        keep_calibration(found)
    return found


def wait_for(child: int) -> int | None:
    """Return how a process ended; None if it had to be ended."""
    for _ in range(600):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


@pytest.fixture(scope="session")
def compiler() -> None:
    """What torch compiles with; without it these tests are left out."""
    command = [os.environ.get("CXX", "g++"), "-fsyntax-only", "-x", "c++", "-"]
    command.insert(1, f"-I{sysconfig.get_path('include')}")
    wanted = "#include <Python.h>\n#include <omp.h>\n#include <vector>\n"
    try:
        subprocess.run(command, input=wanted, text=True, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a C++ compiler and Python's headers: {error}")


@pytest.fixture(scope="session")
def pictures() -> dict[str, Image]:
    """Photographs that ship inside scikit-image, at the sizes the parity figures name."""
    data = pytest.importorskip("skimage.data")
    sources = {"photo": data.astronaut(), "odd": data.coffee(), "panorama": data.chelsea()}
    return {
        name: Image(np.array(PilImage.fromarray(pixels).resize(SIZES_WH[name])), id=name)
        for name, pixels in sources.items()
    }


@pytest.fixture(scope="session")
def tiny() -> Sam2Executor:
    return load("sam2.1/hiera_tiny", device="cpu", seed=SEED)


@pytest.fixture(scope="session")
def small() -> Sam2Executor:
    return load("sam2/hiera_small", device="cpu", seed=SEED)


@pytest.fixture(scope="session")
def nano(load_nano: Callable[..., Sam2Executor]) -> Sam2Executor:
    """The smallest network, with random weights: quick, for everything but parity."""
    return load_nano(seed=SEED)


@pytest.fixture(scope="session")
def tiny_embedding(tiny: Sam2Executor, pictures: dict[str, Image]) -> Embedding:
    return tiny.embed([pictures["photo"]])[0]


@pytest.fixture(scope="session")
def small_embedding(small: Sam2Executor, pictures: dict[str, Image]) -> Embedding:
    return small.embed([pictures["odd"]])[0]


@pytest.fixture(scope="session")
def nano_embedding(nano: Sam2Executor, pictures: dict[str, Image]) -> Embedding:
    return nano.embed([pictures["photo"]])[0]


@pytest.fixture(scope="session")
def official_class() -> Iterator[type]:
    """The official ``SAM2ImagePredictor``."""
    library = _define_torchvision_schemas()
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    yield SAM2ImagePredictor
    del library


@pytest.fixture(scope="session")
def video_class(official_class: type) -> type:
    """The official ``SAM2VideoPredictor``."""
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    return SAM2VideoPredictor


def _define_torchvision_schemas() -> torch.library.Library | None:
    """Make ``import torchvision`` work; the schemas live as long as the library returned."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for schema in TORCHVISION_SCHEMAS:
            library.define(schema)
        return library
    return None
