"""COCO files that grow picture by picture and survive a crash."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sam2_blocks.errors import UsageError
from sam2_blocks.files.atomic import json_text, unfinished_path, write_text
from sam2_blocks.files.json_lines import JsonLines, read_json_lines

NUMBERS = ("id", "image_id", "category_id")


class CocoWriter:
    """Collects the annotations of pictures; the file is written whole, when `finish` is called.

    Until then a hidden file beside it has them, for a later run to go on with after a crash.

    Args:
        path: the COCO file.
        kept: names of pictures that an earlier run put there, and this one does not.

    Raises:
        OSError: if nothing can be written there.
        UsageError: if pictures are to be kept, but it is no COCO file.
    """

    def __init__(self, path: Path, *, kept: Collection[str] = ()) -> None:
        self._path = path
        self._part_path = unfinished_path(path)
        earlier = _read_pictures(path) if kept and path.exists() else {}
        earlier |= _read_rows(self._part_path) if kept else {}
        self._pictures = {name: picture for name, picture in earlier.items() if name in kept}
        self._added: set[str] = set()
        self._part = JsonLines(self._part_path, self._pictures.items())

    def add(self, name: str, picture: Mapping[str, Any]) -> None:
        """Add a picture, or replace that of an earlier run.

        Args:
            name: the picture's ``file_name``.
            picture: its ``width``, ``height`` and ``annotations``; these have no numbers yet, but
                the name of their ``category`` and the detector's ``class_id``, or None.

        Raises:
            ValueError: if this run has added a picture of that name.
        """
        if name in self._added:
            raise ValueError(f"{self._path}: two pictures are called {name!r}; name them apart")
        self._added.add(name)
        self._part.append([name, picture])
        self._pictures[name] = picture

    def finish(self) -> None:
        """Number pictures, annotations and categories, and write the file."""
        self._part.close()
        write_text(self._path, json_text(_number(self._pictures), indent=1) + "\n")
        self._part_path.unlink(missing_ok=True)


def _number(pictures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    rows = [row for picture in pictures.values() for row in picture["annotations"]]
    category_ids = _category_ids(rows)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (file_name, picture) in enumerate(pictures.items(), start=1):
        size = {"width": picture["width"], "height": picture["height"]}
        images.append({"id": image_id, "file_name": file_name, **size})
        for row in picture["annotations"]:
            numbered = {k: v for k, v in row.items() if k not in ("category", "class_id")}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_ids[row["category"]],
                    **numbered,
                }
            )
    categories = [{"id": number, "name": name} for name, number in category_ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _category_ids(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The detector's class ids where each names one class, so that COCO in is COCO out.

    Else the names are numbered from 1 in alphabetical order.
    """
    pairs = {(row["category"], row["class_id"]) for row in rows}
    names, ids = {name for name, _ in pairs}, {class_id for _, class_id in pairs}
    if len(pairs) == len(names) == len(ids) and None not in ids:
        return dict(sorted(pairs, key=lambda pair: pair[1]))
    return {name: index for index, name in enumerate(sorted(names), start=1)}


def _read_pictures(path: Path) -> dict[str, Any]:
    """Undo `_number`; a category's id becomes the class id."""
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in coco["categories"]}
        rows = defaultdict(list)
        for annotation in coco["annotations"]:
            row = {k: v for k, v in annotation.items() if k not in NUMBERS}
            number = annotation["category_id"]
            rows[annotation["image_id"]].append(
                {"category": names[number], "class_id": number, **row}
            )
        return {
            image["file_name"]: {
                "width": image["width"],
                "height": image["height"],
                "annotations": rows[image["id"]],
            }
            for image in coco["images"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot be continued: it is no COCO file as this block writes it "
            f"({type(error).__name__}: {error}). Move it away, or choose another 'path'."
        ) from error


def _read_rows(part: Path) -> dict[str, Any]:
    """Pictures by name, of a file that grew until a crash."""
    rows = [row for row in read_json_lines(part) if isinstance(row, list) and len(row) == 2]
    return {str(name): picture for name, picture in rows}
