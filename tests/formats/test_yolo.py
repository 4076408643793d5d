from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.formats.yolo import (
    NOTE,
    ClassNumbers,
    KnownClasses,
    data_yaml,
    detections_to_yolo,
    read_known,
    renumber,
)
from sam2_blocks.formats.yolo_lines import YoloLabels, read_data_set
from sam2_blocks.kinds import SAMPLE_HW
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.testing import sample_detections


def written(found, hw=SAMPLE_HW, **options):
    numbers = dict(enumerate(found.class_id.tolist()))
    return detections_to_yolo(found, hw, number_of=numbers.get, **options)


@pytest.mark.parametrize("shape", ["polygon", "box"])
def test_boxes_of_masks_are_read_back(tmp_path, shape):
    found = sample_detections()
    found.class_id = np.array([0, 1])
    (tmp_path / "a.txt").write_text(written(found, shape=shape))
    back = YoloLabels().load(tmp_path / "a.txt", SAMPLE_HW, ["face", "object"])
    assert back.data["class_name"].tolist() == ["face", "object"]
    assert np.allclose(back.xyxy, [[2, 3, 12, 15], [14, 5, 30, 20]], atol=0.56)


def test_a_mask_without_pixels_has_no_line():
    found = sample_detections()
    found.mask[0] = False
    [line] = written(found).splitlines()
    assert line.startswith("1 ")


@pytest.mark.parametrize("shape", ["polygon", "box"])
def test_small_shares_are_written_without_exponent(shape):
    mask = np.zeros((1, 900, 30_000), bool)
    mask[0, :2, :2] = True
    found = to_detections(masks_to_prediction(mask))
    text = detections_to_yolo(found, mask.shape[1:], number_of=lambda row: row, shape=shape)
    numbers = text.split()[1:]
    assert all(number.replace(".", "").isdigit() for number in numbers)
    assert 0 < max(map(float, numbers)) < 0.003


def test_a_crowd_has_no_line():
    found = sample_detections()
    found.data["iscrowd"] = np.array([0, 1])
    assert len(written(found).splitlines()) == 1


def test_what_cannot_be_written_is_said():
    with pytest.raises(ValueError, match="the masks are 32x24 pixels, their picture is 9x9"):
        written(sample_detections(), (9, 9))
    with pytest.raises(ValueError, match=r"'cut', which 'classes' does not list\. Did you mean"):
        ClassNumbers(["cat"]).number("cut", None)


def numbered(numbers, *pairs):
    return [numbers.number(name, class_id) for name, class_id in pairs]


def test_classes_with_ids_are_put_in_their_order():
    numbers = ClassNumbers()
    assert numbered(numbers, ("dog", 16), ("person", 0), ("dog", 16), ("cat", 15)) == [0, 1, 0, 2]
    assert numbers.settle() == {0: 2, 1: 0, 2: 1}
    assert numbers.names == ["person", "cat", "dog"]
    assert renumber("0 .1 .2\n1 .5\n", {0: 2, 1: 0}) == "2 .1 .2\n0 .5\n"


@pytest.mark.parametrize(
    "pairs", [[("dog", 0), ("cat", 0)], [("dog", None), ("cat", None)], [("dog", 1), ("cat", None)]]
)
def test_classes_without_ids_of_their_own_are_put_in_the_order_of_the_alphabet(pairs):
    numbers = ClassNumbers()
    assert numbered(numbers, *pairs) == [0, 1]
    assert numbers.settle() == {0: 1, 1: 0}
    assert numbers.names == ["cat", "dog"]


def test_classes_of_a_source_are_all_there():
    numbers = ClassNumbers()
    numbers.note([{"id": 7, "name": "eye"}, {"id": 3, "name": "cup"}, {"id": "x", "name": "odd"}])
    assert numbered(numbers, ("eye", 7)) == [0]
    assert numbers.settle() == {0: 1, 1: 0}
    assert numbers.names == ["cup", "eye"]


def test_what_an_earlier_run_found_counts_until_nothing_has_it():
    earlier = ClassNumbers()
    earlier.note([{"id": 9, "name": "listed"}])
    numbered(earlier, ("b", 5), ("a", 3))
    earlier.settle()
    assert earlier.names == ["a", "b", "listed"]
    numbers = ClassNumbers(known=earlier.known)
    assert numbered(numbers, ("c", 4), ("b", 5)) == [3, 1]
    assert numbers.settle() == {3: 0}
    assert numbers.names == ["c", "b", "listed"]


def test_what_is_known_of_classes_is_read_back(tmp_path):
    known = KnownClasses({"cup": [3], 'a "b"': [], "汽车": [1, 2]}, ["cup"], moving=True)
    file = tmp_path / "data.yaml"
    file.write_text(data_yaml(list(known.ids), known), encoding="utf-8")
    assert read_known(file) == known
    assert list(read_data_set(file).classes.values()) == list(known.ids)
    file.write_text(data_yaml(["cup"]))
    assert read_known(file) is None
    file.write_text(f"{NOTE}[1, 2]\n")
    with pytest.raises(ValueError, match=r"data\.yaml: its first line is not as it was written"):
        read_known(file)


@pytest.mark.parametrize("names", [[], ["cup", 'a "b": c', "汽车", "yes"]])
def test_names_are_read_back(tmp_path, names):
    (tmp_path / "data.yaml").write_text(data_yaml(names), encoding="utf-8")
    assert read_data_set(tmp_path / "data.yaml").classes == dict(enumerate(names))
