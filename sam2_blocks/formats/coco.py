"""COCO annotation files that grow by picture and survive a crash; `coco_boxes` reads them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import supervision as sv
from pycocotools import mask as coco_mask

from sam2_blocks.errors import UsageError
from sam2_blocks.files.atomic import json_text, unfinished_path, write_atomically
from sam2_blocks.files.json_lines import JsonLines, read_json_lines
from sam2_blocks.formats.coco_boxes import ANNOTATION_ID, is_crowd
from sam2_blocks.formats.plain import to_plain
from sam2_blocks.masks.detections import to_rles
from sam2_blocks.masks.outlines import painted_iou, painted_outlines
from sam2_blocks.masks.polygons import rle_to_polygons
from sam2_blocks.masks.rle import rle_area, rle_to_coco
from sam2_blocks.masks.tracing import Ring
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
Outlines = Literal["edges", "pixels"]


def detections_to_annotations(
    found: sv.Detections,
    image_hw: Hw,
    *,
    segmentation: Literal["rle", "polygons"] = "rle",
    outlines: Outlines = "edges",
    tolerance_px: float = 0.0,
) -> list[dict[str, Any]]:
    """Make the annotations of one picture, for `CocoWriter.add`.

    Args:
        found: detections with masks.
        image_hw: size of the picture.
        segmentation: exact run lengths, or polygons; a mask without pixels has no outline, and
            a crowd (``data["iscrowd"]``) is written as run lengths, as other readers want it.
        outlines: along the edges of pixels, for readers that fill what is inside, as pycocotools
            does; or through the border pixels, for those that paint the pixels that an outline
            runs through, too, as supervision, OpenCV and Pillow do.
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
            **_segmentation(rle, "rle" if crowds[index] else segmentation, outlines, tolerance_px),
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


def _segmentation(rle: Rle, form: str, outlines: Outlines, tolerance_px: float) -> dict[str, Any]:
    """Run lengths, or polygons and how much of the mask they keep."""
    if form == "rle" or rle_area(rle) == 0:
        return {"segmentation": rle_to_coco(rle)}
    if outlines == "pixels":
        painted = painted_outlines(rle, tolerance_px=tolerance_px)
        return _polygons(painted, painted_iou(painted, rle))
    traced = rle_to_polygons(rle, hole_policy="bridge", tolerance_px=tolerance_px)
    return _polygons(traced.outer, traced.iou)


def _polygons(rings: Sequence[Ring], iou: float) -> dict[str, Any]:
    flat = [ring.ravel().tolist() for ring in rings]
    return {"segmentation": flat, "polygons_iou": round(float(iou), 4)}


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
        pictures = {name: picture for name, picture in earlier.items() if name in kept}
        self._categories: list[dict[str, Any]] = earlier.get(CATEGORIES, {}).get("rows", [])
        self._added: set[str] = set()
        known = {CATEGORIES: {"rows": self._categories}} if self._categories else {}
        self._part = JsonLines(self._part_path, (known | pictures).items())
        # Only places are held: a file may be larger than memory.
        self._places = dict(zip(known | pictures, self._part.places, strict=True))
        self._places.pop(CATEGORIES, None)

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
        self._places[name] = self._part.append([name, picture])

    def finish(self) -> None:
        """Number pictures, annotations and categories, and write the file."""
        self._part.close()
        last = len(self._order)
        names = sorted(self._places, key=lambda name: self._order.get(name, last))
        places = [self._places[name] for name in names]
        pictures = _Pictures(lambda: self._part.read(places), self._categories)
        write_atomically(self._path, pictures.write)
        self._part_path.unlink(missing_ok=True)


class _Pictures:
    """Pictures with annotations → a COCO file, in passes that hold nothing but numbers.

    Args:
        read: gives names and pictures, in order, as often as it is called.
        listed: categories of the file that the boxes came from.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[tuple[str, Mapping[str, Any]]]],
        listed: Sequence[Mapping[str, Any]],
    ) -> None:
        self._read = read
        rows = {(row["category"], row["class_id"]) for row in self._rows()}
        seen = [{"category": name, "class_id": class_id} for name, class_id in rows]
        self._categories = number_categories(seen, listed)
        self._numbers = CategoryNumbers(self._categories)
        names = self._numbers.names
        self._numbered = any(names.get(row["class_id"]) != row["category"] for row in seen)
        ids = Ids(row.get("id") for row in self._rows())
        self._ids, from_source = ids, bool(listed) or ids.given or self._image_ids().given
        self._info = {
            **(NUMBERED if self._numbered else {}),
            **(SOURCE_IDS if from_source else {}),
        }

    def write(self, file: BinaryIO) -> None:
        """Write the file."""
        videos = dict.fromkeys(p["video"] for _, p in self._read() if "video" in p)
        numbers = {name: number for number, name in enumerate(videos, start=1)}
        named = [{"id": number, "name": name} for name, number in numbers.items()]
        file.write(b"{\n")
        if self._info:
            file.write(f' "info": {_indented(self._info)},\n'.encode())
        if named:
            _write_list(file, "videos", named, end=",")
        _write_list(file, "images", self._images(numbers), end=",")
        _write_list(file, "annotations", self._annotations(), end=",")
        _write_list(file, "categories", self._categories, end="")
        file.write(b"}\n")

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        for _, picture in self._read():
            yield from picture["annotations"]

    def _image_ids(self) -> Ids:
        return Ids(picture.get("id") for _, picture in self._read())

    def _images(self, videos: Mapping[str, int]) -> Iterator[dict[str, Any]]:
        ids = self._image_ids()
        for file_name, picture in self._read():
            facts = {"width": picture["width"], "height": picture["height"]}
            if "video" in picture:
                facts["video_id"] = videos[picture["video"]]
                facts["frame_index"] = picture["frame_index"]
            yield {"id": ids.take(picture.get("id")), "file_name": file_name, **facts}

    def _annotations(self) -> Iterator[dict[str, Any]]:
        image_ids = self._image_ids()
        for _, picture in self._read():
            image_id = image_ids.take(picture.get("id"))
            for row in picture["annotations"]:
                numbered = self._numbered and row["class_id"] is not None
                left_out = {"category", "id"} if numbered else OURS
                yield {
                    "id": self._ids.take(row.get("id")),
                    "image_id": image_id,
                    "category_id": self._numbers.of(row["category"], row["class_id"]),
                    **{k: v for k, v in row.items() if k not in left_out},
                }


def _write_list(file: BinaryIO, name: str, values: Iterable[Any], *, end: str) -> None:
    """Write a list as `json_text` would, with an indent of 1, a value at a time."""
    file.write(f' "{name}": ['.encode())
    count = 0
    for count, value in enumerate(values, start=1):
        file.write((",\n  " if count > 1 else "\n  ").encode() + _indented(value, 2).encode())
    file.write(f"\n ]{end}\n".encode() if count else f"]{end}\n".encode())


def _indented(value: Any, depth: int = 1) -> str:
    return json_text(value, indent=1).replace("\n", "\n" + " " * depth)


class CategoryNumbers:
    """The number of a row's category in a file.

    Args:
        categories: of the file.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]]) -> None:
        self.names = {row["id"]: row["name"] for row in categories}
        self._by_name = {row["name"]: row["id"] for row in reversed(categories)}

    def of(self, name: str, class_id: Id | None) -> Id:
        """The detector's class id where that is the category's, else what the name has."""
        own = class_id is not None and self.names.get(class_id) == name
        return class_id if own and class_id is not None else self._by_name[name]


class Ids:
    """Numbers that are given are kept, the first time each; others get those that follow.

    Args:
        given: the numbers or texts that there are; None where there is none.
    """

    def __init__(self, given: Iterable[Id | None]) -> None:
        self.given, highest = False, 0
        for one in given:
            self.given = self.given or one is not None
            highest = max(highest, one if isinstance(one, int) else 0)
        self._next = 1 + highest
        self._taken: set[Id] = set()

    def take(self, given: Id | None) -> Id:
        """Return the id of what has this one, or none."""
        if given is None or given in self._taken:
            given = self._next
            self._next += 1
        self._taken.add(given)
        return given


def number_categories(
    rows: Collection[Mapping[str, Any]], listed: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Make the categories of a file: those that the boxes' file lists, and what else was found.

    Args:
        rows: each with the name of its ``category`` and the detector's ``class_id``, or None.
        listed: categories of the file that the boxes came from.
    """
    if len({row["id"] for row in listed}) < len(listed):
        listed = ()  # of several files that mean different things by one id
    known = {row["name"] for row in listed}
    new = [row for row in rows if row["category"] not in known]
    if not listed:
        return [{"id": number, "name": name} for name, number in _category_ids(rows).items()]
    free = 1 + max((row["id"] for row in listed if isinstance(row["id"], int)), default=0)
    names = sorted({row["category"] for row in new})
    return [*map(dict, listed), *({"id": free + i, "name": name} for i, name in enumerate(names))]


def _category_ids(rows: Collection[Mapping[str, Any]]) -> dict[str, int]:
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
