from __future__ import annotations

import pytest

from sam2_blocks.environment import read_count, read_switch
from sam2_blocks.errors import Sam2BlocksError


@pytest.mark.parametrize(
    ("text", "on"), [("1", True), (" Yes ", True), ("ON", True), ("0", False), ("", False)]
)
def test_a_switch_is_on_or_off(monkeypatch, text, on):
    monkeypatch.setenv("SWITCH", text)
    assert read_switch("SWITCH") is on
    monkeypatch.delenv("SWITCH")
    assert read_switch("SWITCH") is False


def test_what_is_neither_is_refused(monkeypatch):
    monkeypatch.setenv("SWITCH", "perhaps")
    with pytest.raises(Sam2BlocksError, match="SWITCH='perhaps': wants true or false"):
        read_switch("SWITCH")


def test_a_number_has_a_default(monkeypatch):
    monkeypatch.setenv("COUNT", "")
    assert read_count("COUNT", 7) == 7
    monkeypatch.setenv("COUNT", "12")
    assert read_count("COUNT", 7) == 12
    monkeypatch.setenv("COUNT", "-1")
    with pytest.raises(Sam2BlocksError, match="wants a number of entries, such as 7"):
        read_count("COUNT", 7)
