"""A font for a text: one that ships with a dependency, else one of this machine that has it all."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

PLAIN = frozenset(map(chr, range(33, 127)))
"""What the font that ships has for certain: for these nothing needs to be read, or imported."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_for(text: str, size_px: float, family: str = "") -> tuple[Font, str]:
    r"""Choose a font for a text.

    Args:
        text: to be drawn.
        size_px: height of the letters.
        family: part of the name of a font file of this machine, such as ``NotoSansCJK``; it is
            asked first.

    Returns:
        The first font with a glyph for every character, and the text; or the font that ships, and
        the text with the missing characters as ``\u6c7d``, so that texts can be told apart.
    """
    wanted = frozenset(character for character in text if not character.isspace())
    for path in _fonts(family):
        if (wanted <= PLAIN and path == _shipped()) or wanted <= _characters(path):
            return ImageFont.truetype(str(path), size_px), text
    shipped = _shipped()
    known = _characters(shipped) if shipped else frozenset(map(chr, range(32, 127)))
    written = "".join(c if c in known or c.isspace() else _escaped(c) for c in text)
    font = ImageFont.truetype(str(shipped), size_px) if shipped else ImageFont.load_default(size_px)
    return font, written


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()


def _fonts(family: str) -> Iterator[Path]:
    """Fonts in the order in which they are asked."""
    if family:
        yield from (path for path in _installed() if family.casefold() in path.stem.casefold())
    if shipped := _shipped():
        yield shipped
    yield from _installed()


@cache
def _shipped() -> Path | None:
    """DejaVu Sans, which matplotlib brings, and supervision needs; found without importing it."""
    spec = find_spec("matplotlib")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    path = folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return path if path.is_file() else None


@cache
def _installed() -> tuple[Path, ...]:
    """Fonts of this machine, by name."""
    try:
        from matplotlib.font_manager import findSystemFonts
    except ImportError:
        return ()
    return tuple(sorted(map(Path, findSystemFonts())))


@cache
def _characters(path: Path) -> frozenset[str]:
    """What a font file has glyphs for; nothing if it cannot be read."""
    try:
        from matplotlib.ft2font import FT2Font

        return frozenset(map(chr, FT2Font(str(path)).get_charmap()))
    except (ImportError, OSError, RuntimeError, ValueError):
        return frozenset()
