"""COCO annotation files that grow by picture and survive a crash; `coco_boxes` reads them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import supervision as sv
from pycocotools import mask as coco_mask

from sam2_blocks.errors import UsageError
from sam2_blocks.files.atomic import json_text, unfinished_path, write_text
from sam2_blocks.files.json_lines import JsonLines, read_json_lines
from sam2_blocks.formats.coco_boxes import ANNOTATION_ID, is_crowd
from sam2_blocks.formats.plain import to_plain
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.masks.rle import rle_area, rle_to_coco
from sam2_blocks.values import Hw, Rle

OURS = frozenset({"category", "class_id", "id"})
NUMBERED = {"category_ids": "numbered"}
"""In ``info`` where ids of categories are not the detector's; annotations then keep its class ids,
for a resumed run to number as one that was never interrupted."""
SOURCE_IDS = {"ids": "source"}
"""In ``info`` where ids are those of the COCO file that the boxes came from."""
NUMBERS = ("image_id", "category_id")

CATEGORIES = "\0categories"
"""In place of a picture's name in the file that grows: the categories that are known."""

Id = int | float | str


def detections_to_annotations(
    found: sv.Detections,
    image_hw: Hw,
    *,
    segmentation: Literal["rle", "polygons"] = "rle",
    tolerance_px: float = 0.0,
) -> list[dict[str, Any]]:
    """Make the annotations of one picture, for `CocoWriter.add`.

    Args:
        found: detections with masks.
        image_hw: size of the picture.
        segmentation: exact run lengths, or polygons; a mask without pixels has no outline, and
            a crowd (``data["iscrowd"]``) is written as run lengths, as other readers want it.
        tolerance_px: how far polygons may be from the mask's outline, pixels.

    Raises:
        ValueError: if there are no masks, or they are not of the picture's size.
    """
    crowds = is_crowd(found)
    return [
        {
            **_labels_of(found, index),
            **_identity_of(found, index),
            "bbox": coco_mask.toBbox(rle_to_coco(rle)).tolist(),
            "area": int(rle_area(rle)),
            "iscrowd": int(crowds[index]),
            **({} if found.confidence is None else {"score": float(found.confidence[index])}),
            **({} if found.tracker_id is None else {"track_id": int(found.tracker_id[index])}),
            **_segmentation(rle, "rle" if crowds[index] else segmentation, tolerance_px),
        }
        for index, rle in enumerate(to_rles(found, image_hw))
    ]


def _labels_of(found: sv.Detections, index: int) -> dict[str, Any]:
    names = found.data.get("class_name")
    return {
        "category": "object" if names is None else str(names[index]),
        "class_id": None if found.class_id is None else int(found.class_id[index]),
    }


def _identity_of(found: sv.Detections, index: int) -> dict[str, Any]:
    """The id of the annotation that the row came from, if it came from one."""
    ids = found.data.get(ANNOTATION_ID)
    return {} if ids is None else {"id": to_plain(ids[index])}


def _segmentation(rle: Rle, form: str, tolerance_px: float) -> dict[str, Any]:
    """Run lengths, or polygons and how much of the mask they keep."""
    if form == "rle" or rle_area(rle) == 0:
        return {"segmentation": rle_to_coco(rle)}
    traced = rle_to_polygons(rle, hole_policy="bridge", tolerance_px=tolerance_px)
    rings = [ring.ravel().tolist() for ring in traced.outer]
    return {"segmentation": rings, "polygons_iou": round(float(traced.iou), 4)}


class CocoWriter:
    """Collects the annotations of pictures; the file is written whole, when `finish` is called.

    Until then a hidden file beside it has them, for a later run to go on with after a crash.

    Args:
        path: the COCO file.
        kept: names of pictures that an earlier run put there, and this one does not.
        order: places of pictures by name; those without one come last, as they were added.

    Raises:
        OSError: if nothing can be written there.
        UsageError: if pictures are to be kept, but it is no COCO file.
    """

    def __init__(
        self,
        path: Path,
        *,
        kept: Collection[str] = (),
        order: Mapping[str, int] | None = None,
    ) -> None:
        self._path = path
        self._order = order or {}
        self._part_path = unfinished_path(path)
        earlier = _read_pictures(path) if kept and path.exists() else {}
        earlier |= _read_rows(self._part_path) if kept else {}
        self._pictures = {name: picture for name, picture in earlier.items() if name in kept}
        self._categories: list[dict[str, Any]] = earlier.get(CATEGORIES, {}).get("rows", [])
        self._added: set[str] = set()
        known = {CATEGORIES: {"rows": self._categories}} if self._categories else {}
        self._part = JsonLines(self._part_path, (known | self._pictures).items())

    def add(
        self,
        name: str,
        picture: Mapping[str, Any],
        categories: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Add a picture, or replace that of an earlier run.

        Args:
            name: the picture's ``file_name``.
            picture: its ``width``, ``height`` and ``annotations``; these have no numbers yet, but
                the name of their ``category`` and the detector's ``class_id``, or None. It may
                have the ``id`` that it has in a COCO file it is of, and so may annotations; of a
                frame also the name of its ``video`` and ``frame_index``.
            categories: all of that file.

        Raises:
            ValueError: if this run has added a picture of that name.
        """
        if name in self._added:
            raise ValueError(f"{self._path}: two pictures are called {name!r}; name them apart")
        self._added.add(name)
        new = [dict(row) for row in categories if row not in self._categories]
        if new:
            self._categories += new
            self._part.append([CATEGORIES, {"rows": self._categories}])
        self._part.append([name, picture])
        self._pictures[name] = picture

    def finish(self) -> None:
        """Number pictures, annotations and categories, and write the file."""
        self._part.close()
        last = len(self._order)
        names = sorted(self._pictures, key=lambda name: self._order.get(name, last))
        pictures = {name: self._pictures[name] for name in names}
        write_text(self._path, json_text(_number(pictures, self._categories), indent=1) + "\n")
        self._part_path.unlink(missing_ok=True)


def _number(
    pictures: Mapping[str, Mapping[str, Any]], listed: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    rows = [row for picture in pictures.values() for row in picture["annotations"]]
    categories = _categories(rows, listed)
    category_ids = {row["name"]: row["id"] for row in reversed(categories)}
    names = {row["id"]: row["name"] for row in categories}
    numbered = any(names.get(row["class_id"]) != row["category"] for row in rows)
    image_ids = _Ids([picture.get("id") for picture in pictures.values()])
    ids = _Ids([row.get("id") for row in rows])
    videos: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for file_name, picture in pictures.items():
        image_id = image_ids.take(picture.get("id"))
        facts = {"width": picture["width"], "height": picture["height"]}
        if "video" in picture:
            facts["video_id"] = videos.setdefault(picture["video"], len(videos) + 1)
            facts["frame_index"] = picture["frame_index"]
        images.append({"id": image_id, "file_name": file_name, **facts})
        for row in picture["annotations"]:
            left_out = {"category", "id"} if numbered and row["class_id"] is not None else OURS
            own = names.get(row["class_id"]) == row["category"]
            annotations.append(
                {
                    "id": ids.take(row.get("id")),
                    "image_id": image_id,
                    "category_id": row["class_id"] if own else category_ids[row["category"]],
                    **{k: v for k, v in row.items() if k not in left_out},
                }
            )
    from_source = bool(listed) or image_ids.given or ids.given
    info = {**(NUMBERED if numbered else {}), **(SOURCE_IDS if from_source else {})}
    return {
        **({"info": info} if info else {}),
        **({"videos": [{"id": n, "name": name} for name, n in videos.items()]} if videos else {}),
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


class _Ids:
    """Numbers that are given are kept, the first time each; others get those that follow.

    Args:
        given: the numbers or texts that there are; None where there is none.
    """

    def __init__(self, given: Sequence[Id | None]) -> None:
        self.given = any(one is not None for one in given)
        self._next = 1 + max((n for n in given if isinstance(n, int)), default=0)
        self._taken: set[Id] = set()

    def take(self, given: Id | None) -> Id:
        """Return the id of what has this one, or none."""
        if given is None or given in self._taken:
            given = self._next
            self._next += 1
        self._taken.add(given)
        return given


def _categories(
    rows: Sequence[Mapping[str, Any]], listed: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """All categories that a file lists which the boxes came from, and what else was found."""
    if len({row["id"] for row in listed}) < len(listed):
        listed = ()  # of several files that mean different things by one id
    known = {row["name"] for row in listed}
    new = [row for row in rows if row["category"] not in known]
    if not listed:
        return [{"id": number, "name": name} for name, number in _category_ids(rows).items()]
    free = 1 + max((row["id"] for row in listed if isinstance(row["id"], int)), default=0)
    names = sorted({row["category"] for row in new})
    return [*map(dict, listed), *({"id": free + i, "name": name} for i, name in enumerate(names))]


def _category_ids(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The detector's class ids where each names one class, one higher where the first is 0.

    Many readers take category 0 for the background. Without such class ids the names are numbered
    from 1 in alphabetical order.
    """
    pairs = {(row["category"], row["class_id"]) for row in rows}
    names, ids = {name for name, _ in pairs}, {class_id for _, class_id in pairs}
    if len(pairs) == len(names) == len(ids) and None not in ids and min(ids, default=0) >= 0:
        shift = int(0 in ids)
        return {name: number + shift for name, number in sorted(pairs, key=lambda pair: pair[1])}
    return {name: index for index, name in enumerate(sorted(names), start=1)}


def _read_pictures(path: Path) -> dict[str, Any]:
    """Undo `_number`; a category's id becomes the class id."""
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in coco["categories"]}
        info = coco.get("info") or {}
        numbered, from_source = NUMBERED.items() <= info.items(), SOURCE_IDS.items() <= info.items()
        left_out = NUMBERS if from_source else ("id", *NUMBERS)
        videos = {video["id"]: video["name"] for video in coco.get("videos", ())}
        rows = defaultdict(list)
        for annotation in coco["annotations"]:
            row = {k: v for k, v in annotation.items() if k not in left_out}
            number = annotation["category_id"]
            rows[annotation["image_id"]].append(
                {"category": names[number], "class_id": None if numbered else number, **row}
            )
        pictures = {
            image["file_name"]: {
                "width": image["width"],
                "height": image["height"],
                **({"id": image["id"]} if from_source else {}),
                **_frame_of(image, videos),
                "annotations": rows[image["id"]],
            }
            for image in coco["images"]
        }
        return {**({CATEGORIES: {"rows": coco["categories"]}} if from_source else {}), **pictures}
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot be continued: it is no COCO file as this block writes it "
            f"({type(error).__name__}: {error}). Move it away, or choose another 'path'."
        ) from error


def _frame_of(image: Mapping[str, Any], videos: Mapping[int, str]) -> dict[str, Any]:
    if "video_id" not in image:
        return {}
    return {"video": videos[image["video_id"]], "frame_index": image["frame_index"]}


def _read_rows(part: Path) -> dict[str, Any]:
    """Pictures by name, of a file that grew until a crash."""
    rows = [row for row in read_json_lines(part) if isinstance(row, list) and len(row) == 2]
    return {str(name): picture for name, picture in rows}
