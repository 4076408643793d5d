"""Parts of a run → `supervision.DetectionDataset`, to be looked at, converted or trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_blocks.errors import UsageError
from sam2_blocks.formats.columns import structs_to_detections
from sam2_blocks.formats.parquet import cell_to_text
from sam2_blocks.runs.merge import Row, open_rows
from sam2_blocks.runs.sources.addresses import is_remote, join, tidy

if TYPE_CHECKING:
    import supervision as sv


def load_dataset(address: str | Path, *, output: str | None = None) -> sv.DetectionDataset:
    """Load the results of a run as a data set of supervision.

    Pictures are opened when they are looked at. Those that the run was given by a relative path are
    found from the folder of the parts, so that both can be moved together. Masks are compact; they
    are arrays when somebody asks for one.

    Args:
        address: the folder or URL that a run, or all shards of one, wrote Parquet parts to.
        output: the output with the detections, where the pipeline has several.

    Returns:
        Pictures by path, and the detections of each; class ids count the classes from 0.

    Raises:
        MissingExtraError: if pyarrow is not installed.
        UsageError: if there are no parts or not all, a part is not whole, or a picture is no file
            of this machine, or not there.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sam2_blocks import run_pipeline
        >>> out = tempfile.mkdtemp()
        >>> run = run_pipeline("examples/quickstart.yaml", "examples/pictures/coins.jpg", out=out,
        ...                    form="parquet")
        >>> [result.id for result in run]
        ['coins.jpg']
        >>> dataset = load_dataset(out)
        >>> path, picture, found = dataset[0]
        >>> Path(path).name, len(found), dataset.classes[:1]
        ('coins.jpg', 24, ['coin'])
    """
    import supervision as sv

    rows, name = open_rows(address, output)
    listed = list(rows.read(["source", "image_hw", name]))
    classes = sorted({_class_name(found) for row in listed for found in row[name] or ()})
    annotations: dict[str, sv.Detections] = {}
    for row in listed:
        path = _path_of(row, str(address))
        if path in annotations:
            raise UsageError(
                f"{address}: two items are of the picture {path!r}, and a data set has each once; "
                "merge --to coco instead."
            )
        annotations[path] = _numbered(row, name, classes)
    return sv.DetectionDataset(classes, list(annotations), annotations)


def _numbered(row: Row, output: str, classes: Sequence[str]) -> sv.Detections:
    """The detections of a row, with class ids that count the classes."""
    import numpy as np

    structs = row[output] or ()
    height, width = row["image_hw"]
    found = structs_to_detections(structs, (height, width))
    found.class_id = np.array([classes.index(_class_name(one)) for one in structs], int)
    return found


def _path_of(row: Row, address: str) -> str:
    """Where a row's picture is; a relative path is so to the folder of the parts."""
    source = cell_to_text(row["source"] or "")
    path = join(address, source)
    if not source or is_remote(path):
        raise UsageError(
            f"{address}: the picture of {row['id']!r} is no file of this machine "
            f"({path if source else 'it has no path'}); merge --to coco instead."
        )
    path = tidy(path)
    if not os.path.isfile(path):
        how = "" if path == source else f", which is {source!r} seen from the folder {address!r}"
        raise UsageError(
            f"{path}: no such file; the picture of {row['id']!r} should be there{how}. Put it "
            "there, or run again where it is now."
        )
    return path


def _class_name(found: Row) -> str:
    return cell_to_text(str(found["class_name"] or "object"))
