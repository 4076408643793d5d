from __future__ import annotations

import pytest

from sam2_blocks.cli import doctor


@pytest.fixture
def findings():
    return lambda: {finding.name: finding for finding in doctor.diagnose()}


def test_all_is_well_where_these_tests_run(findings, monkeypatch):
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    found = findings()
    assert [name for name, finding in found.items() if not finding.ok] == []
    assert "torch" in found["packages"].text
    assert found["smoke test"].text.endswith("1 mask")


def test_what_is_broken_is_said_and_the_rest_is_checked(findings, monkeypatch):
    def fail():
        raise OSError("no such device")

    monkeypatch.setattr(doctor, "_devices", fail)
    monkeypatch.setattr(doctor, "_smoke_test", lambda: "skipped")
    found = findings()
    assert (found["devices"].ok, found["devices"].text) == (False, "OSError: no such device")
    assert found["python"].ok
    assert list(found)[-1] == "smoke test"


def test_a_module_of_two_distributions_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "packages_distributions", lambda: {"sam2": ["SAM-2", "sam2"]})
    with pytest.raises(
        Exception, match=r"several distributions own 'sam2': SAM-2, sam2\. Keep one"
    ):
        doctor._owner("sam2")
