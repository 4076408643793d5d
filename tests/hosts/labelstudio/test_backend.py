from __future__ import annotations

import time

import pytest

from sam2_blocks.errors import Sam2BlocksError
from sam2_blocks.hosts.labelstudio.backend import MAX_TOGETHER, SEEN_S
from sam2_blocks.service import ServedModels, ServiceSettings
from sam2_blocks.service.errors import UnknownNameError
from sam2_blocks.testing import FakeExecutor
from tests.hosts.http.conftest import refused
from tests.hosts.labelstudio.projects import ADDRESS, PLAIN, asked, click, config, rectangle
from tests.hosts.labelstudio.test_brush import decode
from tests.service.conftest import fresh

MARKED = {"label_studio_pipeline": "marked"}


def predict(client, *drawn, **given):
    response = client.post("/predict", json=asked(*drawn, **given))
    assert response.status_code == 200, response.text
    return response.json()["results"]


def test_every_object_is_a_region_with_the_label_that_was_chosen(connect):
    [made] = predict(connect(), rectangle(2, 3, 12, 15), click(20, 9, "plate"))
    assert [one["value"]["brushlabels"] for one in made["result"]] == [["cup"], ["plate"]]
    square = decode(made["result"][0]["value"]["rle"], (24, 32))[:, :, 3] > 0
    assert square[3:15, 2:12].all()
    assert made["model_version"].startswith("sam2-blocks ")
    assert made["score"] == made["result"][0]["score"] > 0


@pytest.mark.parametrize(
    ("label_config", "types"),
    [
        (config("PolygonLabels"), ["polygonlabels"]),
        (config("Ellipse"), ["rectanglelabels"]),
        (PLAIN, ["brush", "labels"]),
    ],
)
def test_masks_are_what_the_project_labels_with(connect, label_config, types):
    [made] = predict(connect(), click(8, 9), label_config=label_config)
    assert [one["type"] for one in made["result"]] == types


def test_a_picture_is_fetched_once_for_a_while(connect, server, nano_executor, monkeypatch):
    url, seen = server()
    client = connect(fresh(nano_executor), label_studio_url=url)
    for x in (3, 8, 20):
        predict(client, click(x, 9), picture="/data/sample.png")
    assert len(seen) == 1
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + SEEN_S)
    predict(client, click(8, 9), picture="/data/sample.png")
    assert len(seen) == 2


def test_a_picture_whose_embedding_had_to_go_is_fetched_again(connect, server):
    url, seen = server()
    client = connect(label_studio_url=url)  # the fake executor keeps nothing
    for _ in range(2):
        [made] = predict(client, click(8, 9), picture="/data/sample.png")
        assert len(made["result"]) == 1
    assert len(seen) == 2


def test_without_clicks_and_pipeline_there_are_no_predictions(connect):
    assert predict(connect()) == []


def test_a_pipeline_labels_whole_tasks(connect):
    [made] = predict(connect(**MARKED))
    assert [one["value"]["brushlabels"] for one in made["result"]] == [["cup"], ["plate"]]
    assert " marked" in made["model_version"]


def test_everything_in_a_picture_waits_for_its_labels(connect):
    [made] = predict(connect(label_studio_pipeline="everything"))
    assert {tuple(one["value"]["brushlabels"]) for one in made["result"]} == {()}
    single = config(labels='<Label value="cell"/>')
    [made] = predict(connect(label_studio_pipeline="everything"), label_config=single)
    assert {tuple(one["value"]["brushlabels"]) for one in made["result"]} == {("cell",)}


def test_one_task_that_fails_leaves_the_others(connect, caplog):
    tasks = [
        {"id": 1, "data": {"picture": ADDRESS}},
        {"id": 2, "data": {}},
        {"id": 3, "data": {"picture": "data:image/png;base64,AAAA"}},
    ]
    first, second, third = predict(connect(**MARKED), tasks=tasks)
    assert len(first["result"]) == 2
    assert second == third == []
    assert "task 2 is not labelled: the task's data has no address" in caplog.text
    assert "task 3 is not labelled" in caplog.text


def test_many_tasks_are_to_be_asked_for_one_by_one(connect):
    tasks = [{"id": index, "data": {"picture": ADDRESS}} for index in range(MAX_TOGETHER + 1)]
    assert len(predict(connect(**MARKED), tasks=tasks)) == 1
    assert len(predict(connect(**MARKED), tasks=tasks[:2])) == 2


@pytest.mark.parametrize(
    ("drawn", "given", "message"),
    [
        ([click(8, 9)], {"tasks": []}, "must be a list of regions, of some task"),
        ([3], {}, "must be a list of regions, of some task"),
        ([click(8, 9, "fork")], {}, "the label 'fork' is none of 'mask'"),
        ([click(8, 9)], {"other": ADDRESS}, "no address of a picture in 'picture'"),
        ([click(8, 9)], {"label_config": "<View>"}, "the labelling config is no XML"),
        (
            [click(8, 9, original_width=64, original_height=48)],
            {},
            "has 32 x 24 pixels here and 64 x 48 in Label Studio",
        ),
        ([rectangle(200, 200, 300, 300)], {}, "prompts: "),
    ],
)
def test_what_cannot_be_answered(connect, drawn, given, message):
    refused(connect().post("/predict", json=asked(*drawn, **given)), 422, message)


def test_boxes_are_no_masks(connect, folder_of_pipelines):
    document = """
pipeline_version: 1
inputs: {image: {kind: image}, boxes: {kind: object_detection_prediction, default: [[2, 3, 9, 9]]}}
steps: {keep: {use: detections/filter@v1, with: {detections: $inputs.boxes}}}
outputs: {boxes: $steps.keep.detections}
"""
    (folder_of_pipelines / "boxes.yaml").write_text(document)
    client = connect(label_studio_pipeline="boxes")
    refused(client.post("/predict", json=asked()), 422, "boxes without masks")
    [made] = predict(client, label_config=config("Ellipse"))
    [region] = made["result"]
    assert region["value"]["width"] == pytest.approx(7 * 100 / 32)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("markd", UnknownNameError, "Did you mean 'marked'"),
        ("texts", Sam2BlocksError, r"has the images \[\], lacks \['box'\], and has the outputs"),
    ],
)
def test_a_pipeline_that_labels_nothing(plugins, folder_of_pipelines, name, error, message):
    pytest.importorskip("fastapi", reason="needs the extra http")
    from sam2_blocks.hosts.http import create_app

    (folder_of_pipelines / "texts.yaml").write_text(
        "pipeline_version: 1\ninputs: {box: {kind: object_detection_prediction}}\n"
        "steps: {keep: {use: detections/filter@v1, with: {detections: $inputs.box}}}\n"
        "outputs: {box: $inputs.box}\n"
    )
    settings = ServiceSettings(label_studio=True, label_studio_pipeline=name)
    models = ServedModels({"nano": FakeExecutor("nano")})
    with pytest.raises(error, match=message):
        create_app(models, settings, plugins=plugins, pipelines=folder_of_pipelines)
