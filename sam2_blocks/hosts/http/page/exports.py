"""What was clicked → the files of others, through the same formats as the export blocks."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from sam2_blocks.files.atomic import write_text
from sam2_blocks.files.claims import OutputFiles
from sam2_blocks.files.per_picture import FilePerPicture
from sam2_blocks.formats.clicks import ClickedPicture, clicks_to_detections
from sam2_blocks.formats.coco import CocoWriter, detections_to_annotations
from sam2_blocks.formats.labelme import detections_to_labelme
from sam2_blocks.formats.mask_pictures import indexed_png
from sam2_blocks.formats.yolo import data_yaml, detections_to_yolo
from sam2_blocks.values import Image

Pictures = Sequence[tuple[ClickedPicture, Image]]
"""What was clicked, each with its picture: the name, the size and, if it has one, the file."""


def export_to_folder(form: str, pictures: Pictures, classes: Sequence[str], folder: Path) -> None:
    """Write pictures in a form of others.

    Args:
        form: one of `FORMS`.
        pictures: what was clicked.
        classes: names by class id.
        folder: where the files come to.

    Raises:
        OSError: if they cannot be written.
        ValueError: if two pictures would share a file.
    """
    FORMS[form](pictures, classes, folder)


def export_to_bytes(form: str, pictures: Pictures, classes: Sequence[str]) -> tuple[str, bytes]:
    """Return the name and the content of one file to download: a ZIP, where there are several.

    Raises:
        ValueError: if two pictures would share a file.
    """
    with TemporaryDirectory(prefix="sam2-blocks-") as name:
        folder = Path(name)
        export_to_folder(form, pictures, classes, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if len(files) == 1:
            return files[0].name, files[0].read_bytes()
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(folder).as_posix())
        return f"{form}.zip", stream.getvalue()


def _coco(pictures: Pictures, classes: Sequence[str], folder: Path) -> None:
    writer = CocoWriter(folder / "coco.json")
    for picture, _ in pictures:
        found = clicks_to_detections(picture, classes)
        annotations = detections_to_annotations(found, picture.hw)
        size = {"width": picture.width, "height": picture.height}
        writer.add(picture.file_name, {**size, "annotations": annotations})
    writer.finish()


def _labelme(pictures: Pictures, classes: Sequence[str], folder: Path) -> None:
    def content(picture: ClickedPicture, image: Image, place: Path) -> bytes:
        found = clicks_to_detections(picture, classes)
        return detections_to_labelme(found, image, folder=place).encode()

    _write_each(pictures, folder, "labelme/{folder}/{stem}.json", content)


def _yolo(pictures: Pictures, classes: Sequence[str], folder: Path) -> None:
    used = [one.class_name for picture, _ in pictures for one in picture.objects]
    names = list(dict.fromkeys([*classes, *used]))

    def content(picture: ClickedPicture, image: Image, place: Path) -> bytes:
        numbers = [names.index(one.class_name) for one in picture.objects]
        found = clicks_to_detections(picture, names)
        return detections_to_yolo(found, picture.hw, number_of=numbers.__getitem__).encode()

    _write_each(pictures, folder, "labels/{folder}/{stem}.txt", content)
    write_text(folder / "data.yaml", data_yaml(names))


def _masks(pictures: Pictures, classes: Sequence[str], folder: Path) -> None:
    def content(picture: ClickedPicture, image: Image, place: Path) -> bytes:
        rles = [one.rle() for one in picture.objects]
        return indexed_png(rles, range(1, len(rles) + 1), picture.hw)

    _write_each(pictures, folder, "masks/{folder}/{stem}.png", content)


def _write_each(
    pictures: Pictures,
    folder: Path,
    template: str,
    content: Callable[[ClickedPicture, Image, Path], bytes],
) -> None:
    files = FilePerPicture(OutputFiles(folder))
    top = folder / template.partition("/")[0]
    for picture, image in pictures:
        place = (top / image.id).parent
        files.put(image, template, content(picture, image, place))


FORMS: Mapping[str, Callable[[Pictures, Sequence[str], Path], None]] = {
    "coco": _coco,
    "labelme": _labelme,
    "yolo": _yolo,
    "masks": _masks,
}
