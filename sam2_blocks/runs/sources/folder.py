"""Command-line inputs → items: folders and globs of pictures, ``name=value`` settings."""

from __future__ import annotations

import functools
import glob
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sam2_blocks.engine.runner import Item
from sam2_blocks.errors import PipelineError, Problem, UsageError, did_you_mean
from sam2_blocks.formats.images import MAX_PIXELS, SUFFIXES, read_image
from sam2_blocks.kinds import kinds_named, parse_value
from sam2_blocks.language.documents import parse_yaml
from sam2_blocks.language.pipeline import Pipeline


def find_pictures(source: str, out: Path | None = None) -> dict[str, Path]:
    """Find the pictures a user means.

    Args:
        source: a file, a folder (searched deeply for picture files that are not hidden), or a glob.
        out: the folder the run writes to, whose pictures are results and not inputs.

    Returns:
        Paths by item id, sorted. The id is the path below the folder, or below the
        part of a glob without wildcards.

    Raises:
        UsageError: if there is nothing, or nothing but results.
    """
    path = Path(source)
    if path.is_dir():
        pictures = [file for file in path.rglob("*") if _is_picture(file, path)]
        files = sorted(file for file in pictures if not _is_below(file, out))
        if pictures and not files:
            raise _only_results(source, out)
        if not files:
            known = " ".join(sorted(SUFFIXES))
            raise UsageError(f"{source}: the folder holds no picture; looked for {known}.")
        return {file.relative_to(path).as_posix(): file for file in files}
    if path.exists():
        return {path.name: path}
    found = map(Path, glob.glob(source, recursive=True))
    files = [match for match in found if match.is_file()]
    matches = sorted(file for file in files if not _is_below(file, out))
    if files and not matches:
        raise _only_results(source, out)
    if not matches:
        raise UsageError(f"{source}: no such file, folder or match. Check the path.")
    fixed = _without_wildcards(path)
    return {match.relative_to(fixed).as_posix(): match for match in matches}


def make_items(
    pipeline: Pipeline,
    pictures: dict[str, Path],
    settings: dict[str, Any],
    *,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Item]:
    """Make one item a picture; pictures are read when their batch comes.

    Raises:
        PipelineError: if the pipeline has not exactly one image input left to feed.
    """
    free = [
        name
        for name, declared in pipeline.inputs.items()
        if "image" in declared.kinds and name not in settings
    ]
    free = [name for name in free if pipeline.inputs[name].required] or free
    if len(free) != 1:
        got = " and ".join(map(repr, free)) or "none"
        message = f"wants one input of kind image for --input, got {got}; --set the others."
        raise PipelineError(pipeline.source, [Problem(message, "inputs")])
    for item_id, path in pictures.items():
        read = functools.partial(read_image, path, image_id=item_id, max_pixels=max_pixels)
        yield Item(item_id, {**settings, free[0]: read})


def parse_settings(pairs: Sequence[str], pipeline: Pipeline) -> dict[str, Any]:
    """Parse ``name=value`` pairs; values are YAML, except for inputs that want text.

    Raises:
        UsageError: if a pair has no ``=``, names no input of the pipeline, or its value is none
            that the input could take.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair!r}: wants name=value.")
        if name not in pipeline.inputs:
            hint = did_you_mean(name, pipeline.inputs)
            raise UsageError(f"--set {pair!r}: the pipeline has no input {name!r}.{hint}")
        settings[name] = _parse(pair, text, pipeline.inputs[name].kinds, pipeline)
    return settings


def _without_wildcards(pattern: Path) -> Path:
    """The folder that a glob looks into: its parts before the first with a wildcard."""
    plain = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts)
    return Path(*plain)


def _is_picture(file: Path, folder: Path) -> bool:
    """Whether a file is named like a picture; hidden ones are other programs' business."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix.lower() in SUFFIXES and not hidden and file.is_file()


def _is_below(file: Path, out: Path | None) -> bool:
    return out is not None and out.resolve() in file.resolve().parents


def _only_results(source: str, out: Path | None) -> UsageError:
    return UsageError(
        f"{source}: all pictures there are in the output folder {str(out)!r}, which holds results. "
        "Choose another --out."
    )


def _parse(pair: str, text: str, names: Sequence[str], pipeline: Pipeline) -> Any:
    value = text if {"string", "image"}.intersection(names) else _yaml(pair, text)
    try:
        return parse_value(value, kinds_named(names, pipeline.kinds))
    except (TypeError, ValueError) as error:
        raise UsageError(f"--set {pair!r}: {error}.") from error


def _yaml(pair: str, text: str) -> Any:
    document = parse_yaml(text, f"--set {pair}")
    if document.problems:
        raise UsageError(f"--set {pair!r}: {document.problems[0].message}.")
    return document.data
