from __future__ import annotations

import re

import numpy as np
import pytest

from sam2_blocks import Item, Resources, Runner, StepError, load_pipeline
from sam2_blocks.testing import FakeDetector, FakeExecutor, check_block, run_block, sample_image
from sam2_blocks.values import Image

BLOCK = "transformers/detect@v1"
STEP = {"use": BLOCK, "with": {"image": "$inputs.image"}}


@pytest.fixture
def detectors():
    """Fake detectors by the name they were asked for by."""
    return {}


@pytest.fixture
def resources(detectors, tmp_path):
    def load(model, **options):
        return detectors.setdefault(model, FakeDetector(model, **options))

    return Resources({"sam2": FakeExecutor, "transformers": load}, tmp_path)


@pytest.fixture
def detect(plugins, resources):
    def run(image=None, **params):
        inputs = {"image": image or sample_image()}
        return run_block(BLOCK, inputs, plugins=plugins, resources=resources, **params)

    return run


def run_on(plugins, resources, pictures, **params):
    """Run the block on several pictures; parameters by name for each, or one for all."""
    names = {name: f"$inputs.{name}" for name in params}
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}, **{name: {"kind": "*"} for name in params}},
        "steps": {"detect": {"use": BLOCK, "with": {"image": "$inputs.image", **names}}},
        "outputs": {"found": "$steps.detect.detections"},
    }
    pipeline = load_pipeline(document, plugins.manifests, plugins.kinds)
    items = [
        Item(
            str(index), {"image": image, **{name: values[index] for name, values in params.items()}}
        )
        for index, image in enumerate(pictures)
    ]
    with Runner(pipeline, plugins, resources=resources) as runner:
        return list(runner.run(items))


def test_examples(plugins):
    check_block(BLOCK, plugins=plugins)


def test_gives_boxes_with_names_confidence_and_ids(detect):
    found = detect().outputs["detections"]
    assert found.data["class_name"].tolist() == ["person", "dog", "object"]
    assert found.class_id.tolist() == [0, 1, 2]
    assert found.confidence == pytest.approx([0.9, 0.7, 0.5])
    assert found.mask is None
    assert len(set(found.data["detection_id"])) == 3
    assert set(found.data["parent_id"]) == {"sample.png"}


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"threshold": 0.6}, ["person", "dog"]),
        ({"threshold": 1}, []),
        ({"classes": ["object", "person"]}, ["person", "object"]),
        ({"max_count": 1}, ["person"]),
    ],
)
def test_parameters_choose(detect, params, names):
    assert detect(**params).outputs["detections"].data["class_name"].tolist() == names


def test_a_class_the_model_does_not_know_is_an_error(detect):
    [error] = detect(model="mine/one", classes=["persn"]).errors
    assert "the model 'mine/one' knows no class 'persn'. Did you mean 'person'?" in error.message


def test_pictures_that_are_asked_the_same_are_one_batch(plugins, resources, detectors):
    results = run_on(plugins, resources, [sample_image()] * 4, threshold=[0.1, 0.6, 0.1, 0.6])
    assert [len(result.outputs["found"]) for result in results] == [3, 2, 3, 2]
    [detector] = detectors.values()
    assert detector.looked_at == [2, 2]


def test_several_models_are_loaded_once_each(plugins, resources, detectors):
    models = ["mine/one", "mine/two", "mine/one"]
    run_on(plugins, resources, [sample_image()] * 3, model=models)
    assert {name: of.looked_at for name, of in detectors.items()} == {
        "mine/one": [2],
        "mine/two": [1],
    }


def test_a_wrong_class_fails_only_those_who_ask_for_it(plugins, resources):
    results = run_on(plugins, resources, [sample_image()] * 2, classes=[["cat"], ["dog"]])
    assert "knows no class 'cat'" in results[0].errors[0].message
    assert results[1].outputs["found"].data["class_name"].tolist() == ["dog"]


def test_a_revision_is_part_of_the_name(detect, detectors):
    detect(model="mine/one", revision="v1.2")
    assert list(detectors) == ["mine/one@v1.2"]


def test_tiles_are_looked_at_beside_the_picture(detect, detectors):
    picture = Image(np.zeros((100, 200, 3), np.uint8))
    found = detect(picture, tile_px=100, overlap=0, classes=["dog"]).outputs["detections"]
    [detector] = detectors.values()
    assert detector.looked_at == [3]
    assert len(found) == 3  # the fake one sees another dog in each
    assert found.xyxy[:, 2].max() > 100


def test_a_model_that_is_none_is_refused(plugins, tmp_path):
    resources = Resources({"transformers": FakeExecutor}, tmp_path)
    inputs = {"image": sample_image()}
    with pytest.raises(StepError, match="is no detector: it has no class_names, detect"):
        run_block(BLOCK, inputs, plugins=plugins, resources=resources, model="a/b")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nothing", "there is no model 'nothing': it is in no catalogue"),
        ("./nothing", "there is no folder nothing. Expected a folder that save_pretrained()"),
        ("hub:nothing", "names no repository of the hub"),
    ],
)
def test_a_name_that_means_nothing_is_found_before_the_run(plugins, model, message):
    from sam2_blocks import PipelineError

    step = {**STEP, "with": {**STEP["with"], "model": model}}
    document = {
        "pipeline_version": 1,
        "inputs": {"image": {"kind": "image"}},
        "steps": {"detect": step},
        "outputs": {"found": "$steps.detect.detections"},
    }
    with pytest.raises(PipelineError, match=re.escape(message)):
        plugins.load_pipeline(document)


def test_a_seeded_model_gives_what_the_library_gives(plugins, tiny_detector, tmp_path):
    """From the block down to the network, on the path that users take."""
    from tests.executor.transformers.test_detector import by_hand

    folder = tiny_detector("rt_detr_v2")
    rng = np.random.default_rng(1)
    pictures = [Image(rng.integers(0, 255, (*hw, 3), np.uint8)) for hw in ((120, 160), (50, 40))]
    resources = Resources(plugins.executors, tmp_path)
    given = {"model": [str(folder)] * 2, "device": ["cpu"] * 2, "threshold": [0.5] * 2}
    results = run_on(plugins, resources, pictures, **given)
    for result, expected in zip(results, by_hand(folder, pictures, 0.5), strict=True):
        found = result.outputs["found"]
        assert len(found) > 0
        assert np.abs(found.xyxy - expected["boxes"].numpy()).max() < 1e-3
        # Other processors round sums of a batch of two in another order.
        np.testing.assert_allclose(found.confidence, expected["scores"].numpy(), atol=1e-6)
        assert np.array_equal(found.class_id, expected["labels"].numpy())


def test_a_segmenter_gives_masks(plugins, tiny_detector, tmp_path):
    inputs = {"image": sample_image()}
    model = str(tiny_detector("rf_detr_seg"))
    found = run_block(
        BLOCK,
        inputs,
        plugins=plugins,
        resources=Resources(plugins.executors, tmp_path),
        model=model,
        device="cpu",
        threshold=0.01,
    ).outputs["detections"]
    assert len(found) > 0
    assert found.mask.shape == (len(found), *sample_image().hw)
