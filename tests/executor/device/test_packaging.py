from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.device import packaging
from sam2_blocks.executor.device.packages import open_package
from sam2_blocks.executor.device.packaging import compile_package
from tests.executor.conftest import wait_for

# Torch's own modules, imported by its compiler.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

CPU = torch.device("cpu")


def layer(rows: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    return [F.linear(rows, weight).relu(), rows.float().sum(0)]


@pytest.fixture(scope="module")
def tensors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 8, generator=generator), torch.randn(6, 8, generator=generator)]


@pytest.fixture(scope="module")
def content(tensors, compiler) -> bytes:
    """A package of `layer` in bfloat16."""
    before = dict(os.environ)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        made = compile_package(layer, tensors, "the layer")
    assert dict(os.environ) == before
    return made


def test_a_package_computes_what_was_compiled_with_its_casts(content, tensors):
    package = open_package(content, CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = layer(*tensors)
        within = package(*tensors)
    for found in (within, package(*tensors)):
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype
            torch.testing.assert_close(ours, theirs)


def test_weights_are_given_and_strides_do_not_matter(content, tensors):
    rows, weight = tensors
    package = open_package(content, CPU)
    other = torch.ones(8, 6).t()  # not as it lies in memory where it was compiled
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = layer(rows, other)
    torch.testing.assert_close(package(rows, other)[0], expected[0])
    assert not torch.equal(package(rows, weight)[0], expected[0])


def test_threads_may_call_a_package_on_the_cpu(content, tensors):
    package = open_package(content, CPU)
    expected = package(*tensors)[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: package(*tensors)[0], range(40)))
    assert all(torch.equal(one, expected) for one in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_waits_for_no_threads_of_its_parent():
    rows, threads = torch.ones(400_000), torch.get_num_threads()
    torch.set_num_threads((os.cpu_count() or 1) + 1)  # where torch would write it into the code
    try:
        content = compile_package(lambda batch: [batch.sin(), batch.sum().view(1)], [rows], "sums")
        package = open_package(content, CPU)
        package(rows)
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)  # as `Workers` does
            os._exit(0 if package(rows)[1].item() == len(rows) else 1)
        assert wait_for(child) == 0
    finally:
        torch.set_num_threads(threads)


def test_a_function_with_tensors_of_its_own_is_refused(tensors):
    own = torch.ones(8)
    with pytest.raises(ModelError, match=r"the layer cannot be packaged: it keeps tensors of its"):
        compile_package(lambda rows, _: [rows + own], tensors, "the layer")


def test_what_is_computed_for_nothing_is_left_out(monkeypatch, tensors):
    own, followed = torch.ones(8), []
    monkeypatch.setattr(
        packaging, "aoti_compile_and_package", lambda exported, **_: followed.append(exported)
    )

    def function(rows: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
        _ = rows + own
        return [rows @ weight.t()]

    compile_package(function, tensors, "the layer")
    [exported] = followed
    assert not exported.constants
    assert not exported.state_dict


def test_without_a_compiler_it_is_said_what_is_missing(tensors):
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(
            ModelError,
            match=r"the layer cannot be compiled here: .*C\+\+ compiler such as g\+\+ and",
        ),
    ):
        compile_package(lambda rows, _: [rows.sin().cos() + 1], tensors, "the layer")


def test_a_compilers_complaint_is_found_in_what_it_says(monkeypatch, tensors):
    said = "C++ compile error\n\nCommand:\ng++ x.cpp\n\nOutput:\nx.cpp:1:2: error: no cuda.h\nx"

    def fail(exported, **_):
        raise RuntimeError(said)

    monkeypatch.setattr(packaging, "aoti_compile_and_package", fail)
    with pytest.raises(ModelError, match=r"compiled here: x\.cpp:1:2: error: no cuda\.h\. It"):
        compile_package(layer, tensors, "the layer")


def test_what_compilers_leave_is_deleted(monkeypatch, tmp_path, tensors):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    packaging._leftovers.cache_clear()

    def interrupt(exported, **_):
        Path(os.environ[packaging.CACHE_VARIABLE], "half.cpp").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(packaging, "aoti_compile_and_package", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compile_package(layer, tensors, "the layer")
    assert list(tmp_path.rglob("half.cpp"))
    for _ in range(2):
        packaging.remove_leftovers()
        assert not list(tmp_path.iterdir())


def test_cuda_is_compiled_with_its_toolkit_and_the_driver_in_memory(monkeypatch, tmp_path):
    driver = tmp_path / "libcuda.so.1"
    driver.write_text("a driver")
    maps = tmp_path / "maps"
    maps.write_text(
        f"7f00-7f01 r-xp 00000000 08:01 1 /lib/libc.so.6\n7f02-7f03 r-xp 0 0 1 {driver}\n"
    )
    monkeypatch.setattr(packaging, "MEMORY_MAP", maps)
    monkeypatch.setenv("LIBRARY_PATH", "/theirs")
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", "/opt/cuda")
    folder = tmp_path / "work"
    folder.mkdir()
    for _ in range(2):
        found = packaging._cuda_variables(folder)
        assert found == {
            "LIBRARY_PATH": os.pathsep.join(["/theirs", str(folder)]),
            "CUDA_HOME": "/opt/cuda",
        }
    assert Path(folder, "libcuda.so").resolve() == driver
    monkeypatch.setattr(packaging, "MEMORY_MAP", tmp_path / "none")
    assert packaging._find_driver() is None
