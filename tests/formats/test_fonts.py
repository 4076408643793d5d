from __future__ import annotations

import pytest

from sam2_blocks.formats import fonts
from sam2_blocks.formats.fonts import font_for


@pytest.fixture
def alone(monkeypatch):
    """A machine without fonts of its own."""
    monkeypatch.setattr(fonts, "_installed", lambda: ())


@pytest.mark.parametrize("text", ["cup 0.93", "Tür", "чашка", "łyżka", ""])
def test_the_font_that_ships_has_most_letters(alone, text):
    font, written = font_for(text, 12)
    assert written == text
    assert font.getname()[0] == "DejaVu Sans"


def test_plain_letters_need_nothing_of_matplotlib(alone, monkeypatch):
    assert fonts._characters(fonts._shipped()) >= fonts.PLAIN
    monkeypatch.setattr(fonts, "_characters", lambda path: pytest.fail("read"))
    assert font_for("cup 0.93", 12)[0].getname()[0] == "DejaVu Sans"


def test_what_no_font_has_is_written_out(alone):
    assert font_for("汽车 1", 12)[1] == r"\u6c7d\u8f66 1"


def test_a_font_of_the_machine_is_asked_for_what_is_missing(monkeypatch):
    shipped = fonts._shipped()
    other = shipped.with_name("DejaVuSerif.ttf")
    monkeypatch.setattr(fonts, "_installed", lambda: (other,))
    assert font_for("cup", 12)[0].getname()[0] == "DejaVu Sans"
    assert font_for("cup", 12, "dejavuserif")[0].getname()[0] == "DejaVu Serif"
    monkeypatch.setattr(fonts, "_shipped", lambda: None)
    assert font_for("cup", 12)[0].getname()[0] == "DejaVu Serif"


def test_without_any_font_there_is_pillow_s_own(alone, monkeypatch):
    monkeypatch.setattr(fonts, "_shipped", lambda: None)
    assert font_for("cup ü", 12)[1] == r"cup \xfc"


def test_a_file_that_is_no_font_has_no_characters(tmp_path):
    (tmp_path / "a.ttf").write_text("x")
    assert fonts._characters(tmp_path / "a.ttf") == frozenset()
