import io
import json
from pathlib import Path

import numpy as np
import pytest

from sam2_blocks import Exporter, Kind
from sam2_blocks.engine.exporters import (
    BUILTIN_EXPORTERS,
    Together,
    choose_format,
    find_formats,
    json_exporter,
)
from sam2_blocks.kinds import BUILTIN_KINDS
from sam2_blocks.testing import sample_detections, sample_image

KINDS = {kind.name: kind for kind in BUILTIN_KINDS}


class Depth:
    def __init__(self, metres):
        self.metres = metres


def check_depth(value):
    if not isinstance(value, Depth):
        raise TypeError("wants Depth")


DEPTH = Kind("depth", "Depth", check_depth, dump=lambda value, _: {"metres": value.metres})
KINDS["depth"] = DEPTH


def written(value, *kinds, exporters=BUILTIN_EXPORTERS):
    """File names and bytes of an output called ``it``."""
    made = {}
    for name, write in choose_format(value, find_formats(kinds, KINDS, exporters)).files(
        "it", value
    ):
        file = io.BytesIO()
        write(file)
        made[name] = file.getvalue()
    return made


def test_numbers_are_written_as_over_http():
    file = io.BytesIO()
    json_exporter(KINDS["dictionary"]).write({"x": np.float32(1.5), "y": [np.int64(2)]}, file)
    assert json.loads(file.getvalue()) == {"x": 1.5, "y": [2]}


def test_each_says_what_its_files_end_with():
    assert {exporter.suffix for exporter in BUILTIN_EXPORTERS.values()} == {".png", ".json"}


def test_a_plugin_s_kind_is_json_as_it_dumps_itself():
    made = written(Depth(np.float32(2.5)), "depth")
    assert {name: json.loads(text) for name, text in made.items()} == {"it.json": {"metres": 2.5}}


def test_lists_of_a_plugin_s_kind_are_one_file():
    made = written([Depth(1), Depth(2)], "list of depth")
    assert json.loads(made["it.json"]) == [{"metres": 1}, {"metres": 2}]


def test_a_kind_that_is_no_plain_data_asks_for_a_dump():
    KINDS["odd"] = Kind("odd", "anything", lambda _: None)
    with pytest.raises(TypeError, match="a object is no plain data; give its kind a 'dump'"):
        written(object(), "odd")


def test_prompts_are_json_that_is_read_again():
    prompts = KINDS["prompts"].sample(False)
    assert json.loads(written(prompts, "prompts")["it.json"]) == [{"box_xyxy": [2, 3, 12, 15]}]


def test_pictures_in_lists_are_files_with_numbers():
    image = sample_image()
    made = written([image, None, image], "list of image")
    assert list(made) == ["it/000.png", "it/002.png"]
    assert made["it/002.png"].startswith(b"\x89PNG")
    deeper = written([[image], [], [image, image]], "list of list of image")
    assert list(deeper) == ["it/000/000.png", "it/002/000.png", "it/002/001.png"]


def test_lists_of_a_kind_with_an_exporter_are_files_of_it():
    text = Exporter(".txt", lambda value, file: file.write(str(value.metres).encode()))
    assert written([Depth(7)], "list of depth", exporters={"depth": text}) == {"it/000.txt": b"7"}


def test_lists_of_detections_are_one_json_file():
    kind = "list of instance_segmentation_prediction"
    made = written([sample_detections(), sample_detections(0)], kind)
    assert [len(rows) for rows in json.loads(made["it.json"])] == [2, 0]


def test_of_several_kinds_the_one_that_fits_says_how():
    kinds = ("image", "string", "integer")
    assert list(written(sample_image(), *kinds)) == ["it.png"]
    assert json.loads(written("text", *kinds)["it.json"]) == "text"
    assert json.loads(written(3, *kinds)["it.json"]) == 3


def test_embeddings_are_too_large_for_json_and_unknown_kinds_have_no_form():
    assert find_formats(["image_embedding"], KINDS, BUILTIN_EXPORTERS) == ()
    assert find_formats(["list of image_embedding"], KINDS, BUILTIN_EXPORTERS) == ()
    assert find_formats(["unheard_of"], KINDS, BUILTIN_EXPORTERS) == ()


def test_files_that_may_be_of_an_output_are_found(tmp_path: Path):
    [one] = find_formats(["list of list of image"], KINDS, BUILTIN_EXPORTERS)
    (tmp_path / "it" / "000").mkdir(parents=True)
    for name in ("it/000/001.png", "it/000/mine.png", "it/002.png"):
        (tmp_path / name).write_bytes(b"")
    assert list(one.found(tmp_path, "it")) == [tmp_path / "it" / "000" / "001.png"]
    [plain] = find_formats(["image"], KINDS, BUILTIN_EXPORTERS)
    assert list(plain.found(tmp_path, "it")) == [tmp_path / "it.png"]


FORM = choose_format(
    sample_detections(), find_formats(["object_detection_prediction"], KINDS, BUILTIN_EXPORTERS)
)


def made_of(together, value):
    [(_, write)] = together.files(FORM, "it", value)
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def test_what_is_made_together_is_what_each_is_by_itself():
    many = [sample_detections(count) for count in (2, 0, 1)]
    together = Together([(FORM, value) for value in many])
    assert [made_of(together, value) for value in many] == [
        written(value, "object_detection_prediction")["it.json"] for value in many
    ]


def test_what_is_left_out_does_not_move_the_others():
    first, second, third = (sample_detections(count) for count in (2, 1, 0))
    together = Together([(FORM, value) for value in (first, second, third)])
    alone = written(third, "object_detection_prediction")["it.json"]
    assert made_of(together, third) == alone  # the outputs of an item after one that failed
    assert made_of(together, third) == alone  # and what is gone already


def test_one_that_is_wrong_fails_alone():
    good, bad = sample_detections(1), sample_detections(1)
    bad.data["rle_mask"], bad.mask = ["no run lengths"], None
    together = Together([(FORM, bad), (FORM, good)])
    with pytest.raises(ValueError, match="rle_mask"):
        made_of(together, bad)
    assert made_of(together, good) == written(good, "object_detection_prediction")["it.json"]


def test_pictures_are_made_one_by_one():
    image = sample_image()
    [form] = find_formats(["image"], KINDS, BUILTIN_EXPORTERS)
    together = Together([(form, image), (FORM, sample_detections())])
    assert [name for name, _ in together.files(form, "it", image)] == ["it.png"]


def test_a_plugin_s_way_to_make_many_may_fail():
    def fail(values):
        raise RuntimeError("not today")

    text = Exporter(".txt", lambda value, file: file.write(str(value.metres).encode()), fail)
    [form] = find_formats(["depth"], KINDS, {"depth": text})
    values = [Depth(1), Depth(2)]
    together = Together([(form, value) for value in values])
    for value, expected in zip(values, (b"1", b"2"), strict=True):
        [(_, write)] = together.files(form, "it", value)
        file = io.BytesIO()
        write(file)
        assert file.getvalue() == expected
