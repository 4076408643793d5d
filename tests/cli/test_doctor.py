from __future__ import annotations

import pytest

from sam2_blocks.cli import doctor
from sam2_blocks.errors import MissingExtraError
from sam2_blocks.executor import backends
from sam2_blocks.executor.device import found as devices
from sam2_blocks.executor.openvino import library


@pytest.fixture
def findings():
    return lambda: {finding.name: finding for finding in doctor.diagnose()}


def test_all_is_well_where_these_tests_run(findings, monkeypatch):
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    monkeypatch.setenv("SAM2_BLOCKS_API_KEY", "secret")
    found = findings()
    assert [name for name, finding in found.items() if finding.state == "bad"] == []
    assert "torch" in found["packages"].text
    assert "SAM2_BLOCKS_API_KEY=…" in found["environment"].text
    assert "secret" not in str(found)
    assert "nano: " in found["models"].text
    assert list(found)[-1] == "a picture"
    assert "a disc is found with IoU 0.9" in found["a picture"].text


def test_what_is_broken_is_said_and_the_rest_is_checked(findings, monkeypatch):
    def fail():
        raise OSError("no such device")

    monkeypatch.setattr(doctor, "_devices", fail)
    monkeypatch.setattr(doctor, "_segment_a_picture", lambda: "skipped")
    found = findings()
    assert (found["devices"].state, found["devices"].text) == ("bad", "OSError: no such device")
    assert found["python"].state == "ok"
    assert list(found)[-1] == "a picture"


def test_a_module_of_two_distributions_is_a_warning_with_what_to_do(findings, monkeypatch):
    monkeypatch.setattr(doctor, "packages_distributions", lambda: {"sam2": ["SAM-2", "sam2"]})
    monkeypatch.setattr(doctor, "version", lambda name: "1.0")
    monkeypatch.setattr(doctor, "_segment_a_picture", lambda: "skipped")
    found = findings()
    assert found["sam2"].state == "warning"
    assert found["sam2"].text.startswith("SAM-2 and sam2 both bring the module 'sam2'")
    assert found["sam2"].text.endswith("pip install --force-reinstall --no-deps sam2")
    assert "sam2 1.0 and 1.0" in found["packages"].text


def test_a_gpu_that_torch_does_not_use_is_a_warning(findings, monkeypatch):
    monkeypatch.setattr(devices, "suggest_installation", lambda: "choose the line for it")
    monkeypatch.setattr(doctor, "_segment_a_picture", lambda: "skipped")
    finding = findings()["acceleration"]
    assert (finding.state, finding.text) == ("warning", "choose the line for it")


@pytest.fixture
def backends_line(findings, monkeypatch):
    monkeypatch.setattr(doctor, "_segment_a_picture", lambda: "skipped")
    return lambda: findings()["backends"]


def test_the_backend_that_is_here_is_named_with_what_it_is_fast_in(backends_line):
    version = pytest.importorskip("openvino").get_version().partition("-")[0]
    finding = backends_line()
    assert finding.state == "ok"
    assert finding.text.startswith(f"torch, openvino ({version}: FP32")


def test_a_backend_that_is_missing_is_no_problem(backends_line, monkeypatch):
    monkeypatch.setattr(backends, "has_openvino", lambda: False)
    finding = backends_line()
    assert finding.state == "ok"
    assert finding.text.endswith("faster on a CPU: pip install 'sam2-blocks[openvino]'")


@pytest.mark.parametrize("error", [MissingExtraError, RuntimeError])
def test_a_backend_that_is_broken_is_a_warning_with_the_reason(backends_line, monkeypatch, error):
    def fail():
        raise error("libtbb.so: cannot open shared object file")

    monkeypatch.setattr(backends, "has_openvino", lambda: True)
    monkeypatch.setattr(library, "describe_openvino", fail)
    finding = backends_line()
    assert finding.state == "warning"
    assert finding.text == (
        "torch. OpenVINO cannot be used: libtbb.so: cannot open shared object file"
    )
