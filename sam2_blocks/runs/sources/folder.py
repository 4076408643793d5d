"""Files, folders and patterns of pictures → items."""

from __future__ import annotations

import functools
import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from PIL import Image as Pil

from sam2_blocks.engine.places import RunRequest
from sam2_blocks.engine.records import Item
from sam2_blocks.errors import UsageError
from sam2_blocks.files.reading import file_stamp
from sam2_blocks.formats.images import count_frames, read_image, split_frame

NOT_OPENED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"})
"""Formats that Pillow recognises, but opens only with another program or not at all."""

OTHER_FILES = {
    "a video": ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm "
    ".wmv .y4m",
    "a table": ".ods .tsv .xls .xlsx",
    "an archive": ".7z .bz2 .gz .rar .tgz .xz .zip",
    "a document": ".json .md .pdf .toml .xml .yaml .yml",
    "an array": ".npy .npz .pt .pth .safetensors",
}
ACCEPTED = (
    "--input takes a picture, a folder of pictures, a quoted pattern such as 'photos/*.jpg', a "
    "video, a list (.txt), a table (.csv, .jsonl, .parquet), a COCO file, WebDataset shards (.tar) "
    "or a URL, and may be repeated"
)

PathT = TypeVar("PathT", str, Path)

MANY_FRAMES = frozenset({".apng", ".gif", ".tif", ".tiff", ".webp"})
"""Endings of files that may hold several pictures."""

VIDEO_SUFFIXES = frozenset(OTHER_FILES["a video"].split())

RESULTS, HIDDEN, NO_PICTURES, VIDEOS, LINKED_TWICE, SEEN_TWICE, LINKED_NOWHERE, CLOSED = (
    "in the output folder",
    "hidden",
    "not named like a picture",
    "videos, which a pattern such as '*.mp4' names",
    "linked folders seen before",
    "seen before in a linked folder",
    "links that lead nowhere",
    "folders that may not be read",
)


class PictureFiles:
    """The pictures that a user names, each an item.

    With one input, an id is the path below the folder, or below the part of a pattern without
    wildcards; with several, below the folder that all of them have in common.

    Args:
        inputs: files, folders (searched deeply, in natural order), or patterns.
        request: what they are for; pictures in its output folder are results and no items.

    Attributes:
        pictures: paths by item id, in their order.
        identity: the inputs, absolute; see `Source`.
        alone: whether there is one input, a file of one picture.

    Raises:
        UsageError: if there is nothing, or nothing but results, or a file is of another sort.
        PipelineError: if the pipeline has not exactly one input that pictures can go to.
    """

    def __init__(self, inputs: Sequence[str], request: RunRequest) -> None:
        self.identity = ", ".join(os.path.abspath(text) for text in inputs)
        self._input = request.image_input
        self._max_pixels = request.max_pixels
        self._value_range = request.value_range
        out = request.out if isinstance(request.out, Path) else None
        self._left_out: Counter[str] = Counter()
        self.pictures = list_pictures(inputs, out, self._left_out)
        self.alone = len(inputs) == 1 and Path(inputs[0]).is_file() and len(self.pictures) == 1

    @property
    def total(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    @property
    def notes(self) -> list[str]:
        """One line that counts what was left out, and why."""
        if not self._left_out:
            return []
        reasons = ", ".join(f"{count} {reason}" for reason, count in self._left_out.items())
        return [f"left out: {reasons}"]

    def items(self) -> Iterator[Item]:
        """List the pictures; each is read when its batch comes."""
        for name, path in self.pictures.items():
            read = functools.partial(
                read_image,
                path,
                image_id=name,
                max_pixels=self._max_pixels,
                value_range=self._value_range,
            )
            yield Item(name, {self._input: read}, _stamp(path), source=str(path))


def list_pictures(
    inputs: Sequence[str], out: Path | None = None, left_out: Counter[str] | None = None
) -> dict[str, Path]:
    """Find the pictures that a user names: paths by item id, in their order.

    Args:
        inputs: files, folders or patterns, see `PictureFiles`.
        out: a folder whose pictures are results.
        left_out: is told how many files were left out, by the reason.

    Raises:
        UsageError: if there is nothing, or nothing but results, or a file is of another sort.
    """
    left_out = Counter() if left_out is None else left_out
    found = [_find(text, out, left_out) for text in inputs]
    base = found[0][0] if len(found) == 1 else _common_folder([root for root, _ in found])
    files = {_relative(file, base): file for _, files in found for file in files}
    return dict(frame for name, file in files.items() for frame in _frames(name, file))


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """Endings of all formats that Pillow opens on this machine, such as ``.jpg``."""
    Pil.init()
    return frozenset(
        suffix
        for suffix, name in Pil.registered_extensions().items()
        if (name in Pil.OPEN or name == "MPO") and name not in NOT_OPENED  # MPO opens as JPEG
    )


def natural_key(path: PurePath) -> list[list[str | int]]:
    """Sort key with numbers in their order: ``2.jpg`` comes before ``10.jpg``."""
    return [_natural(part) for part in path.parts]


def _natural(text: str) -> list[str | int]:
    parts: list[str | int] = list(re.split(r"([0-9]+)", text.casefold()))
    parts[1::2] = [int(number) for number in parts[1::2]]
    return [*parts, text]


def _find(text: str, out: Path | None, left_out: Counter[str]) -> tuple[Path, list[Path]]:
    """The folder that an input's ids start from, and its pictures in natural order."""
    path = Path(text)
    if path.is_dir():
        root, candidates = path, _search(path, left_out)
    elif path.exists():
        _check_sort(path)
        return path.parent, [path]
    else:
        root = _without_wildcards(path)
        matches = match_files(text)
        candidates = each_once(matches)
        if not candidates:
            raise UsageError(f"{text}: no such file, folder or match. Check the path.")
        if len(candidates) < len(matches):
            left_out[SEEN_TWICE] += len(matches) - len(candidates)
    files = [file for file in candidates if not _is_below(file, out)]
    if candidates and not files:
        raise UsageError(
            f"{text}: all pictures there are in the output folder {str(out)!r}, which holds "
            "results. Choose another --out."
        )
    if not files:
        raise UsageError(f"{text}: {_nothing_in(left_out[VIDEOS])}.")
    if len(files) < len(candidates):
        left_out[RESULTS] += len(candidates) - len(files)
    return root, sorted(files, key=natural_key)


def _nothing_in(videos: int) -> str:
    """Say what was looked for in a folder, and how to name what it has instead."""
    if videos:
        return f"holds {videos} videos and no picture; name them by a pattern, such as '*.mp4'"
    return (
        "the folder holds no picture; looked for the formats that Pillow opens, such as .jpg .png "
        ".tif .webp"
    )


def match_files(pattern: str) -> list[Path]:
    """Return the files that a pattern matches, in no order; links may lead to one twice."""
    matches = dict.fromkeys(map(Path, glob.glob(pattern, recursive=True)))
    return [path for path in matches if path.is_file()]


def each_once(paths: Iterable[PathT]) -> list[PathT]:
    """Return the shortest way to each file; ``**`` goes through linked folders, also in circles."""
    real_folder = functools.cache(os.path.realpath)
    found: dict[tuple[str, str], PathT] = {}
    for path in sorted(paths, key=lambda path: len(PurePath(path).parts)):
        folder, name = os.path.split(path)
        found.setdefault((real_folder(folder), name), path)
    return list(found.values())


def _search(folder: Path, left_out: Counter[str]) -> list[Path]:
    """Find pictures deeply. Linked folders are followed, and each folder is seen once."""
    seen: set[tuple[int, int]] = set()
    folders, links, files = [folder], list[Path](), list[Path]()
    while folders or links:
        current = folders.pop() if folders else links.pop(0)  # real folders come before links
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            left_out[LINKED_TWICE] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            entries = sorted(os.scandir(current), key=lambda entry: _natural(entry.name))
        except PermissionError:
            left_out[CLOSED] += 1
            continue
        for entry in entries:
            path = current / entry.name
            if entry.name.startswith("."):  # other programs' business
                left_out[HIDDEN] += 1
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(path)
            elif path.suffix.lower() in picture_suffixes() and entry.is_file():
                files.append(path)
            else:
                left_out[_why_left_out(path)] += 1
    return files


def _why_left_out(path: Path) -> str:
    if not path.exists():
        return LINKED_NOWHERE
    return VIDEOS if path.suffix.lower() in VIDEO_SUFFIXES else NO_PICTURES


def _check_sort(file: Path) -> None:
    """Refuse a file that cannot be a picture by its name."""
    ending = file.suffix.lower()
    for sort, endings in OTHER_FILES.items():
        if ending in endings.split() and ending not in picture_suffixes():
            raise UsageError(f"{file}: is {sort}, not a picture; {ACCEPTED}.")


def _without_wildcards(pattern: Path) -> Path:
    """The folder that a pattern looks into: its parts before the first with a wildcard."""
    plain = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts)
    return Path(*plain)


def _common_folder(roots: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath([os.path.abspath(root) for root in roots]))
    except ValueError:  # on several drives
        return Path()


def _relative(file: Path, base: Path) -> str:
    """The id of a picture."""
    if file.is_relative_to(base):
        return file.relative_to(base).as_posix()
    absolute = Path(os.path.abspath(file))
    return (absolute.relative_to(base) if absolute.is_relative_to(base) else absolute).as_posix()


def _frames(name: str, file: Path) -> Iterator[tuple[str, Path]]:
    """The frames or pages of a file, each ``a.tif#3``; the file itself if it is one picture."""
    count = count_frames(file) if file.suffix.lower() in MANY_FRAMES else 1
    if count == 1:
        yield name, file
    else:
        yield from ((f"{name}#{n}", file.with_name(f"{file.name}#{n}")) for n in range(count))


def _is_below(file: Path, out: Path | None) -> bool:
    return out is not None and out.resolve() in file.resolve().parents


def _stamp(picture: Path) -> str:
    return file_stamp(split_frame(picture)[0])
