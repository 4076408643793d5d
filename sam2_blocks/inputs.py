"""Command-line inputs → items: folders and globs of pictures, ``name=value`` settings."""

from __future__ import annotations

import functools
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sam2_blocks.documents import parse_yaml
from sam2_blocks.errors import PipelineError, Problem, Sam2BlocksError, did_you_mean
from sam2_blocks.images import MAX_PIXELS, SUFFIXES, read_image
from sam2_blocks.pipeline import Pipeline
from sam2_blocks.runner import Item


def find_pictures(source: str) -> dict[str, Path]:
    """Find the pictures a user means.

    Args:
        source: a file, a folder (searched deeply for picture files), or a glob.

    Returns:
        Paths by item id, sorted. The id is the path below the folder, or the file name.

    Raises:
        Sam2BlocksError: if there is nothing.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not files:
            known = " ".join(sorted(SUFFIXES))
            raise Sam2BlocksError(f"{source}: the folder holds no picture; looked for {known}.")
        return {file.relative_to(path).as_posix(): file for file in files}
    if path.exists():
        return {path.name: path}
    matches = sorted(Path(match) for match in glob.glob(source, recursive=True))
    if not matches:
        raise Sam2BlocksError(f"{source}: no such file, folder or match. Check the path.")
    names = [match.name for match in matches]
    unique = len(set(names)) == len(names)
    return {match.name if unique else match.as_posix(): match for match in matches}


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
    if len(free) != 1:
        message = f"wants one input of kind image for --input, has {free or 'none'}."
        raise PipelineError(pipeline.source, [Problem(message, "inputs")])
    for item_id, path in pictures.items():
        read = functools.partial(read_image, path, image_id=item_id, max_pixels=max_pixels)
        yield Item(item_id, {**settings, free[0]: read})


def parse_settings(pairs: Sequence[str], pipeline: Pipeline) -> dict[str, Any]:
    """Parse ``name=value`` pairs; values are YAML, except for inputs that want text.

    Raises:
        Sam2BlocksError: if a pair has no ``=``, or names no input of the pipeline.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise Sam2BlocksError(f"--set {pair!r}: wants name=value.")
        if name not in pipeline.inputs:
            hint = did_you_mean(name, pipeline.inputs)
            raise Sam2BlocksError(f"--set {pair!r}: the pipeline has no input {name!r}.{hint}")
        settings[name] = text if "string" in pipeline.inputs[name].kinds else _yaml(pair, text)
    return settings


def _yaml(pair: str, text: str) -> Any:
    document = parse_yaml(text, f"--set {pair}")
    if document.problems:
        raise Sam2BlocksError(f"--set {pair!r}: {document.problems[0].message}.")
    return document.data
