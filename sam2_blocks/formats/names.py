"""Which picture a name in an annotation file means, as a person would match them."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property
from html import unescape
from urllib.parse import unquote

from sam2_blocks.values import Image

Parts = tuple[str, ...]

MOST_SHOWN = 3
NEIGHBOURS = 100
"""Names on each side that a wrong one is compared with; comparing all takes too long."""

_LOCAL = re.compile(r"^.*/local-files/?\?d=")
_SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]+://+|[a-z]:[\\/])", re.IGNORECASE)
_QUERY = re.compile(r"[?#].*$")
_PICTURE = re.compile(r"\.[a-z][a-z0-9]{1,4}$")
_OTHERS = re.compile(r"[\W_]+")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")
_AUGMENTED = re.compile(r"_([a-z0-9]{3,4})\.rf\.[0-9A-Za-z]+\.[a-z0-9]+$", re.IGNORECASE)


def _plain(name: str) -> Parts:
    """Folders and file of a path of any system, or of an address, without what leads nowhere."""
    name = _LOCAL.sub("", name)
    scheme = _SCHEME.match(name)
    if scheme and "://" in scheme[0]:
        name = _QUERY.sub("", name)
    name = name[scheme.end() :] if scheme else name
    visible = "".join(c for c in name if unicodedata.category(c) not in ("Cf", "Cc"))
    text = unicodedata.normalize("NFC", visible).replace("\\", "/")
    parts = [part.strip() for part in text.split("/")]
    return tuple(part for part in parts if part not in ("", ".", ".."))


def _decoded(name: str) -> Parts:
    """The same of a name with ``%20``, ``&amp;`` and the like."""
    return _plain(unquote(unescape(name)))


def _any_case(name: str) -> Parts:
    return tuple(part.casefold() for part in _decoded(name))


def _original(name: str) -> Parts:
    """Without what Label Studio puts before a name, and Roboflow behind it."""
    *folders, last = _any_case(name) or ("",)
    return (*folders, _AUGMENTED.sub(r".\1", _UPLOAD.sub("", last)))


def _without_suffix(name: str) -> Parts:
    *folders, last = _original(name)
    return (*folders, _PICTURE.sub("", last))


def _words(name: str) -> Parts:
    """Letters and digits alone: tools put others in place of spaces, brackets and the like."""
    read = (_OTHERS.sub("_", unicodedata.normalize("NFKC", part)) for part in _without_suffix(name))
    return tuple(part.strip("_") for part in read)


READINGS: Sequence[Callable[[str], Parts]] = (
    lambda name: (name,),
    _plain,
    _decoded,
    _any_case,
    _original,
    _without_suffix,
    _words,
)
"""Ever freer ways to read a name. The first by which exactly one fits decides."""


class PictureNames:
    r"""The names in one file, to find that of a picture.

    Names of any system fit (``images\a.jpg``, ``file:///x/a%20b.jpg``), longer and shorter ones
    (``train/a.jpg`` and ``a.jpg``), of any case, with what Label Studio or Roboflow added, without
    suffix, and with other signs between words: each only where no stricter reading fits, and where
    one name alone does.

    Args:
        names: as the file has them, each once.
        source: the file, for messages.
    """

    def __init__(self, names: Iterable[str], source: str) -> None:
        self.names = list(names)
        self._source = source
        self._indices: dict[int, dict[str, list[tuple[Parts, str]]]] = {}

    def find(self, image: Image) -> str:
        """Return the name that is this picture's.

        Raises:
            ValueError: if none is, or several may be.
        """
        wanted = [image.id] if image.path is None else [image.id, image.path.as_posix()]
        for number in range(len(READINGS)):
            found = self._fitting(number, wanted)
            if len(found) == 1:
                return found[0]
            if found:
                shown = ", ".join(map(repr, found[:MOST_SHOWN]))
                raise ValueError(f"{self._source}: {image.id!r} could be any of {shown}")
        raise ValueError(f"{self._source}: lists no picture {image.id!r}.{self._nearest(image.id)}")

    def _fitting(self, number: int, wanted: Sequence[str]) -> list[str]:
        """Names that fit by the id, of these those that fit by the path too, if any."""
        found: list[str] = []
        for text in wanted:
            parts = READINGS[number](text)
            candidates = self._index(number).get(parts[-1], []) if parts else []
            same = [name for listed, name in candidates if listed == parts]
            fitting = same or [name for listed, name in candidates if _same_end(listed, parts)]
            if len(fitting) == 1 and fitting[0] in (found or fitting):
                return fitting
            found = found or fitting
        return found

    def _index(self, number: int) -> dict[str, list[tuple[Parts, str]]]:
        """Names by the last part of one reading."""
        if number not in self._indices:
            index = defaultdict(list)
            for name in self.names:
                if parts := READINGS[number](name):
                    index[parts[-1]].append((parts, name))
            self._indices[number] = dict(index)
        return self._indices[number]

    def _nearest(self, wanted: str) -> str:
        """The names that are most like it, as the tail of a message."""
        if not self.names:
            return " It lists none."
        last = (_any_case(wanted) or (wanted,))[-1]
        forward, backward = self._ordered
        near = [*_around(forward, last), *(key[::-1] for key in _around(backward, last[::-1]))]
        close = get_close_matches(last, list(dict.fromkeys(near)), n=MOST_SHOWN, cutoff=0.5)
        named = [name for key in close for name in self._by_last[key][:1]]
        shown = ", ".join(map(repr, (named or self.names)[:MOST_SHOWN]))
        word = "The nearest names are" if named else f"Of {len(self.names)} names, the first are"
        return f" {word} {shown}."

    @cached_property
    def _by_last(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for name in self.names:
            found[(_any_case(name) or (name,))[-1]].append(name)
        return dict(found)

    @cached_property
    def _ordered(self) -> tuple[list[str], list[str]]:
        """Last parts by their beginnings and by their ends, the latter turned around."""
        return sorted(self._by_last), sorted(name[::-1] for name in self._by_last)


def _around(ordered: Sequence[str], name: str) -> Sequence[str]:
    place = bisect_left(ordered, name)
    return ordered[max(0, place - NEIGHBOURS) : place + NEIGHBOURS]


def _same_end(one: Parts, other: Parts) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]
