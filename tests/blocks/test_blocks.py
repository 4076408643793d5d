from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sam2_blocks import Item, Runner, read_image
from sam2_blocks.blocks.automatic import Automatic
from sam2_blocks.engine.resources import Resources
from sam2_blocks.errors import StepError
from sam2_blocks.formats.coco import _category_ids
from sam2_blocks.formats.rows import CocoBoxes, boxes_to_detections
from sam2_blocks.language.manifest import manifest_dir
from sam2_blocks.masks.detections import to_detections
from sam2_blocks.masks.rle import masks_to_prediction
from sam2_blocks.testing import (
    FakeExecutor,
    check_block,
    run_block,
    sample_detections,
    sample_image,
)
from sam2_blocks.values import AutomaticSettings, CropSettings, ExecutorSpec, Image, PromptSet
from tests.conftest import PICTURES, ROOT

BLOCK_FILES = sorted(file.stem for file in manifest_dir().glob("*.yaml"))


def test_examples_of_every_block_run(plugins):
    assert len(plugins.manifests) == len(BLOCK_FILES)
    for block in plugins.manifests:
        check_block(block, plugins=plugins)


# detections/load@v1


@pytest.fixture
def picture(tmp_path):
    target = tmp_path / "coffee.jpg"
    target.write_bytes((PICTURES / "coffee.jpg").read_bytes())
    return read_image(target)


@pytest.fixture
def load(run_one_step, picture):
    def run(**params):
        return run_one_step("detections/load@v1", {"image": picture}, params)

    return run


def test_json_beside_the_picture_is_loaded(load, tmp_path):
    (tmp_path / "coffee.json").write_bytes((PICTURES / "coffee.json").read_bytes())
    found = load().outputs["detections"]
    assert found.data["class_name"].tolist() == ["saucer", "cup", "coffee", "spoon"]
    assert found.xyxy[1].tolist() == [172, 16, 411, 246]


def test_coco_is_recognised_and_boxes_are_corners(load):
    found = load(path=str(ROOT / "examples" / "coco" / "boxes.json")).outputs["detections"]
    assert found.data["class_name"].tolist() == ["cup", "spoon"]
    assert found.xyxy[0].tolist() == [172, 16, 411, 246]


def test_yolo_lines_are_boxes_and_outlines(load, tmp_path):
    lines = "1 0.5 0.5 0.2 0.5\n\n0 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4\n"
    (tmp_path / "coffee.txt").write_text(lines)
    found = load(path="{dir}/{stem}.txt", classes=["cup", "spoon"]).outputs["detections"]
    assert found.data["class_name"].tolist() == ["spoon", "cup"]
    assert np.allclose(found.xyxy[0], [240, 100, 360, 300])
    assert np.allclose(found.xyxy[1], [60, 40, 180, 160])
    assert found.confidence is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("coffee.json", None, "no such file beside the picture. Set 'path', or 'missing: empty'"),
        ("coffee.json", "{", "not JSON"),
        (
            "coffee.json",
            '{"annotations": []}',
            "not COCO, wants images, annotations and categories",
        ),
        ("coffee.json", '{"detections": [[1, 2]]}', "row 0: wants box_xyxy"),
        ("coffee.json", '{"detections": [[1, 2]]}', "coffee.json: row 0"),
        ("coffee.txt", "0 0.5 0.5", "line 1: wants a class and 4 numbers of a box, or 6 and more"),
        ("coffee.txt", "0 .5 .5 .4 .4 3", "line 1: wants shares of the picture, 0 to 1"),
        ("coffee.txt", "0 .5 .5 .4 .4 .9 3", "line 1: wants shares of the picture, 0 to 1"),
        ("coffee.txt", "0 172 16 239 230", "are these pixels, or a tracker's id?"),
        ("coffee.txt", "1e30 .5 .5 .4 .4", "line 1: "),
        ("coffee.txt", "0 .5 .5 .4 .4\n0 .5 .5 .4 .4 .9", "coffee.txt: row 1 has a confidence"),
        ("coffee.txt", "cup 0.5 0.5 1 1", "line 1: could not convert string to float"),
        ("coffee.txt", "inf 0.5 0.5 1 1", "line 1: wants a whole class number"),
        ("coffee.txt", "0.7 0.5 0.5 1 1", "line 1: wants a whole class number"),
    ],
)
def test_a_wrong_file_is_explained(load, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    [error] = load(path=f"{{dir}}/{name}").errors
    assert message in error.message


def test_a_file_that_is_not_utf_8_is_named(load, tmp_path):
    (tmp_path / "coffee.txt").write_bytes(b"\xff\xfe0 .5")
    [error] = load(path="{dir}/coffee.txt").errors
    assert "coffee.txt: is not UTF-8 text" in error.message


@pytest.mark.parametrize(
    ("line", "confidence"),
    [
        ("0 .5 .5 .2 .2 .75", [0.75]),
        ("0 .4 .4 .6 .4 .6 .6", None),
        ("0 .4 .4 .6 .4 .6 .6 .75", [0.75]),
    ],
)
def test_yolo_text_has_a_confidence_or_none(load, tmp_path, line, confidence):
    (tmp_path / "coffee.TXT").write_text(f"\ufeff{line}\n", encoding="utf-8")
    found = load(path="{dir}/coffee.TXT").outputs["detections"]
    assert np.allclose(found.xyxy, [[240, 160, 360, 240]], atol=1e-3)
    assert (None if found.confidence is None else found.confidence.tolist()) == confidence


@pytest.mark.parametrize("key", ["file_name", "id"])
def test_a_coco_file_that_lists_an_image_twice_is_refused(load, tmp_path, key):
    data = json.loads((ROOT / "examples" / "coco" / "boxes.json").read_text())
    data["images"][1][key] = data["images"][0][key]
    (tmp_path / "boxes.json").write_text(json.dumps(data))
    [error] = load(path="{dir}/boxes.json").errors
    assert f"lists two images with {key} {data['images'][0][key]!r}" in error.message


def test_a_coco_file_of_another_size_is_refused(load, tmp_path):
    data = json.loads((ROOT / "examples" / "coco" / "boxes.json").read_text())
    data["images"][0]["width"] = 10
    (tmp_path / "boxes.json").write_text(json.dumps(data))
    [error] = load(path="{dir}/boxes.json").errors
    assert "says 'coffee.jpg' is 10x400 pixels, the picture is 600x400" in error.message


def test_a_picture_that_coco_does_not_list_is_refused(run_one_step):
    path = str(ROOT / "examples" / "coco" / "boxes.json")
    result = run_one_step("detections/load@v1", {"image": sample_image("x.png")}, {"path": path})
    assert "lists no picture 'x.png'" in result.errors[0].message


def coco_of(tmp_path, *names):
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    data = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "boxes.json").write_text(json.dumps(data))
    return CocoBoxes(tmp_path / "boxes.json")


def test_a_coco_name_may_be_longer_or_shorter_than_the_picture_s(tmp_path):
    coco = coco_of(tmp_path, "train/a.png", "b.png")
    assert len(coco.load(sample_image("a.png"))) == 0
    assert len(coco.load(sample_image("deep/b.png"))) == 0


def test_a_coco_name_that_fits_two_pictures_is_refused(tmp_path):
    coco = coco_of(tmp_path, "a.png")
    coco.load(sample_image("a.png"))
    with pytest.raises(ValueError, match=r"both 'a\.png' and 'x/a\.png' end in that name"):
        coco.load(sample_image("x/a.png"))
    with pytest.raises(ValueError, match=r"'a\.png' could be any of 'x/a\.png', 'y/a\.png'"):
        coco_of(tmp_path, "x/a.png", "y/a.png").load(sample_image("a.png"))


def test_classes_without_numbers_of_their_own_are_numbered_by_name():
    rows = [{"category": name, "class_id": 0} for name in ("dog", "cat")]
    assert _category_ids(rows) == {"cat": 1, "dog": 2}


def test_a_missing_file_may_mean_no_boxes(load):
    assert len(load(missing="empty").outputs["detections"]) == 0


def test_a_wrong_placeholder_is_explained(load):
    [error] = load(path="{folder}/x.json").errors
    assert "path '{folder}/x.json' has a wrong placeholder: 'folder'" in error.message


# detections/filter@v1


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({}, ["face", "object"]),
        ({"classes": ["face"]}, ["face"]),
        ({"min_confidence": 0.7}, ["face"]),
        ({"min_area": 150}, ["object"]),
        ({"max_area": 150}, ["face"]),
        ({"max_count": 1}, ["face"]),
        ({"max_count": 0}, []),
    ],
)
def test_filter_keeps_what_passes(run_one_step, params, kept):
    found = sample_detections()
    result = run_one_step("detections/filter@v1", {"detections": found}, params)
    passed = result.outputs["detections"]
    assert passed.data["class_name"].tolist() == kept
    assert len(passed.data["rle_mask"]) == len(kept)


def test_filter_by_class_wants_class_names(run_one_step):
    found = sample_detections()
    del found.data["class_name"]
    result = run_one_step("detections/filter@v1", {"detections": found}, {"classes": ["a"]})
    assert "cannot filter by class" in result.errors[0].message


def test_filter_takes_boxes_without_confidence_as_certain(run_one_step):
    from sam2_blocks.formats.rows import rows_to_detections

    found = rows_to_detections([[0, 0, 9, 9]])
    result = run_one_step("detections/filter@v1", {"detections": found}, {"min_confidence": 0.9})
    assert len(result.outputs["detections"]) == 1


# sam2/segment@v1


def test_segment_carries_class_and_confidence_over(run_one_step):
    found = sample_detections()
    result = run_one_step("sam2/segment@v1", {"image": sample_image(), "boxes": found})
    predictions = result.outputs["predictions"]
    assert predictions.data["class_name"].tolist() == ["face", "object"]
    assert np.allclose(predictions.confidence, [0.9, 0.6])
    assert np.allclose(predictions.data["iou_prediction"], 0.75)
    assert predictions.data["parent_id"].tolist() == found.data["detection_id"].tolist()


def test_segment_drops_uncertain_masks_but_keeps_their_numbers(run_one_step):
    result = run_one_step(
        "sam2/segment@v1",
        {"image": sample_image(), "boxes": sample_detections()},
        {"min_confidence": 0.8},
    )
    assert len(result.outputs["predictions"]) == 0


def test_segment_takes_no_prompts(run_one_step):
    result = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": PromptSet()})
    assert len(result.outputs["predictions"]) == 0
    assert not result.errors


def test_segment_takes_ten_thousand_prompts(run_one_step):
    boxes = np.tile(np.array([[2, 3, 12, 15]], np.float32), (10_000, 1))
    prompts = PromptSet.from_boxes(boxes)
    result = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": prompts})
    assert len(result.outputs["predictions"]) == 10_000


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([12, 3, 2, 15], "inverted"),
        ([2, 15, 12, 3], "inverted"),
        ([100, 100, 120, 120], "outside"),
    ],
)
def test_segment_refuses_meaningless_boxes(run_one_step, box, message):
    prompts = PromptSet.from_boxes([[1, 1, 5, 5], box])
    [error] = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": prompts}).errors
    assert "prompt 1" in error.message
    assert message in error.message


def test_segment_clips_boxes_that_reach_outside(run_one_step):
    prompts = PromptSet.from_boxes([[20, 10, 90, 90]])
    with pytest.warns(UserWarning, match="clipped"):
        result = run_one_step("sam2/segment@v1", {"image": sample_image(), "prompts": prompts})
    assert result.outputs["predictions"].data["prompt_xyxy"][0].tolist() == [20, 10, 90, 90]


# sam2/automatic@v1


def test_automatic_masks_say_where_they_come_from(run_one_step):
    image = sample_image()
    found = run_one_step("sam2/automatic@v1", {"image": image}, {"points_per_side": 2})
    detections = found.outputs["predictions"]
    assert detections.data["prompt_xyxy"][:, :2].tolist() == [[8, 6], [24, 6], [8, 18], [24, 18]]
    assert detections.data["stability_score"].tolist() == [1, 1, 1, 1]
    assert set(detections.data["parent_id"]) == {image.id}


def test_automatic_takes_pictures_and_embeddings_mixed(plugins):
    executor = FakeExecutor()
    images = [sample_image(f"{index}.png") for index in range(3)]
    [embedding] = executor.embed(images[1:2])
    block = Automatic(Resources({"sam2": lambda *_, **__: executor}))
    params = {"points_per_side": 1, "model": "fake", "device": "auto", "dtype": "auto"}
    settings = asdict(AutomaticSettings()) | asdict(CropSettings()) | params
    items = [SimpleNamespace(image=image, embedding=None, **settings) for image in images]
    items[1] = SimpleNamespace(image=None, embedding=embedding, **settings)
    parents = [result["predictions"].data["parent_id"][0] for result in block.run(items)]
    assert parents == ["0.png", "1.png", "2.png"]


def test_automatic_looks_into_crops_of_a_picture(run_one_step):
    image = Image(np.zeros((200, 300, 3), np.uint8), "large.png")
    params = {"points_per_side": 2, "crop_n_layers": 1}
    found = run_one_step("sam2/automatic@v1", {"image": image}, params).outputs["predictions"]
    assert len(found) == 16
    assert found.data["rle_mask"][0]["size"] == [200, 300]
    assert set(found.data["parent_id"]) == {"large.png"}


@pytest.mark.parametrize(
    ("of", "params", "message"),
    [
        ("embedding", {}, "crop_n_layers = 1 cuts the picture itself, and got its embedding"),
        ("image", {"crop_n_points_downscale_factor": 4}, "no points are left for the crops of"),
    ],
)
def test_automatic_says_why_it_cannot_cut(run_one_step, of, params, message):
    image = sample_image()
    value = image if of == "image" else FakeExecutor().embed([image])[0]
    params = {"points_per_side": 2, "crop_n_layers": 1, **params}
    result = run_one_step("sam2/automatic@v1", {of: value}, params)
    assert message in result.errors[0].message


def test_automatic_needs_an_executor_that_can(plugins):
    class Plain:
        def __init__(self, model, *, device, dtype):
            self.spec = ExecutorSpec(model, "cpu", "float32")

        embed, segment = FakeExecutor.embed, FakeExecutor.segment
        embedded: ClassVar[list[str]] = []

    resources = Resources({"sam2": Plain})
    with pytest.raises(StepError, match="'nano' cannot segment without prompts"):
        run_block(
            "sam2/automatic@v1", {"image": sample_image()}, plugins=plugins, resources=resources
        )


def test_segment_answers_on_tiles_where_asked(run_one_step):
    inputs = {"image": sample_image(), "boxes": sample_detections()}
    whole = run_one_step("sam2/segment@v1", inputs).outputs["predictions"]
    tiled = run_one_step("sam2/segment@v1", inputs, {"tile_px": 18}).outputs["predictions"]
    assert [rle["counts"] for rle in tiled.data["rle_mask"]] == [
        rle["counts"] for rle in whole.data["rle_mask"]
    ]
    assert tiled.data["class_name"].tolist() == ["face", "object"]


def test_tiles_want_the_picture(run_one_step):
    [embedding] = FakeExecutor().embed([sample_image()])
    inputs = {"embedding": embedding, "boxes": sample_detections()}
    [error] = run_one_step("sam2/segment@v1", inputs, {"tile_px": 18}).errors
    assert "tile_px = 18 cuts the picture itself, and got its embedding" in error.message


# masks/polygons@v1 and draw/masks@v1


def test_polygons_say_how_exact_they_are(run_one_step):
    result = run_one_step("masks/polygons@v1", {"predictions": sample_detections()})
    first, second = result.outputs["polygons"]
    assert first["class_name"] == "face"
    assert first["iou"] == second["iou"] == 1.0
    assert sorted(map(tuple, first["outer"][0])) == [(2, 3), (2, 15), (12, 3), (12, 15)]


def test_drawing_changes_only_a_copy(run_one_step):
    image = sample_image()
    before = image.pixels.copy()
    params = {"labels": False, "boxes": True}
    result = run_one_step(
        "draw/masks@v1", {"image": image, "predictions": sample_detections()}, params
    )
    drawn = result.outputs["image"].pixels
    assert np.array_equal(image.pixels, before)
    assert (drawn[8, 6] != before[8, 6]).any()
    assert np.array_equal(drawn[22, 2], before[22, 2])


def test_drawing_nothing_returns_the_picture(run_one_step):
    image = sample_image()
    nothing = boxes_to_detections([])
    result = run_one_step("draw/masks@v1", {"image": image, "predictions": nothing})
    assert np.array_equal(result.outputs["image"].pixels, image.pixels)


def test_masks_are_drawn_in_the_palette_s_colours(run_one_step):
    params = {"labels": False, "opacity": 1.0}
    found = sample_detections(1)
    result = run_one_step("draw/masks@v1", {"image": sample_image(), "predictions": found}, params)
    assert result.outputs["image"].pixels[9, 7].tolist() == [163, 81, 251]


# export/coco@v1


@pytest.fixture
def export_coco(plugins, export_pipeline, tmp_path):
    """Run pictures through steps that each write a COCO file, by step: their results."""

    def run(pictures, **steps):
        written = {name: ("export/coco@v1", params) for name, params in steps.items()}
        pipeline = export_pipeline("annotations", **written)
        inputs = [{"image": image, "found": sample_detections(1)} for image in pictures]
        items = [Item(str(number), given) for number, given in enumerate(inputs)]
        resources = Resources({"sam2": FakeExecutor}, tmp_path / "out")
        with Runner(pipeline, plugins, resources=resources) as runner:
            return list(runner.run(items))

    return run


def test_two_pictures_of_one_name_do_not_replace_each_other(export_coco, tmp_path):
    first, second = export_coco([sample_image("a.png"), sample_image("a.png")], export={})
    assert not first.errors
    assert "coco.json: two pictures are called 'a.png'" in second.errors[0].message
    assert len(json.loads((tmp_path / "out" / "coco.json").read_text())["images"]) == 1


def test_a_mask_without_pixels_can_be_read_back(plugins, tmp_path):
    nothing = to_detections(masks_to_prediction(np.zeros((1, 24, 32), bool)))
    inputs = {"image": sample_image(), "predictions": nothing}
    resources = Resources({}, tmp_path)
    run_block(
        "export/coco@v1", inputs, plugins=plugins, resources=resources, segmentation="polygons"
    )
    [row] = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    assert coco_mask.area(row["segmentation"]) == 0


def test_two_steps_do_not_write_one_file(export_coco, tmp_path):
    [result] = export_coco(
        [sample_image()], first={}, second={"path": "./coco.json"}, third={"path": "b.json"}
    )
    assert [error.step for error in result.errors] == ["second"]
    assert "another step or output writes" in result.errors[0].message
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["b.json", "coco.json"]


@pytest.mark.parametrize("path", ["../coco.json", "/tmp/coco.json"])
def test_a_file_outside_the_output_folder_is_refused(export_coco, tmp_path, path):
    [result] = export_coco([sample_image()], export={"path": path})
    assert "is not below the output folder" in result.errors[0].message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_coco_is_written_once_at_the_end(plugins, export_pipeline, tmp_path, form):
    pipeline = export_pipeline("annotations", export=("export/coco@v1", {"segmentation": form}))
    resources = Resources({"sam2": FakeExecutor}, tmp_path)
    target = tmp_path / "coco.json"
    with Runner(pipeline, plugins, resources=resources, batch_size=1) as runner:
        for name, count in (("a.png", 2), ("b.png", 0)):
            inputs = {"image": sample_image(name), "found": sample_detections(count)}
            assert not next(runner.run([Item(name, inputs)])).errors
        assert not target.exists()
    coco = json.loads(target.read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "b.png"]
    assert coco["categories"] == [{"id": 0, "name": "face"}, {"id": 1, "name": "object"}]
    first, second = coco["annotations"]
    assert (first["image_id"], first["category_id"], first["area"]) == (1, 0, 120)
    assert first["bbox"] == [2, 3, 10, 12]
    assert second["id"] == 2
    segmentation = first["segmentation"]
    if form == "polygons":
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, 24, 32))
    assert coco_mask.area(segmentation) == 120
