from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.errors import ModelError
from sam2_blocks.executors import ObjectDetector, TextPrompted

PHRASES = ["Cup", "red car", "spoon"]


def test_boxes_and_scores_are_those_of_the_library(load, tiny_detector, pictures):
    import torch
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    folder = tiny_detector("grounding_dino")
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(
        images=[picture.pixels for picture in pictures], text=[PHRASES] * 2, return_tensors="pt"
    )
    with torch.inference_mode():
        outputs = model(**inputs)
    expected = processor.post_process_grounded_object_detection(
        outputs,
        inputs["input_ids"],
        threshold=0.3,
        text_threshold=0.0,
        target_sizes=[picture.hw for picture in pictures],
    )
    grounder = load("grounding_dino")
    assert isinstance(grounder, TextPrompted)
    assert not isinstance(grounder, ObjectDetector)
    found = grounder.ground(pictures, PHRASES, threshold=0.3, text_threshold=0.0)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) > 0
        assert np.abs(ours.boxes_xyxy - theirs["boxes"].numpy()).max() < 1e-3
        assert np.array_equal(ours.confidence, theirs["scores"].numpy())


def test_classes_are_the_phrases_as_written(load, pictures):
    found = load("grounding_dino").ground(pictures, PHRASES, threshold=0.0, text_threshold=0.0)
    for of_picture in found:
        assert set(of_picture.class_names) <= set(PHRASES)
        assert of_picture.class_names == tuple(PHRASES[i] for i in of_picture.class_ids)


def test_what_no_word_names_is_left_out(load, pictures):
    grounder = load("grounding_dino")
    [found] = grounder.ground(pictures[:1], PHRASES, threshold=0.0, text_threshold=1.0)
    assert len(found) == 0


def test_more_phrases_than_the_model_reads_take_several_passes(load, pictures, monkeypatch):
    grounder = load("grounding_dino")  # reads 16 tokens
    phrases = ["cup", "spoon", "cat", "dog", "table", "person", "red car", "blue car", "the car"]
    texts = []
    prepare = grounder._network.prepare
    monkeypatch.setattr(
        type(grounder._network),
        "prepare",
        lambda self, images, **named: (texts.append(named["text"][0]), prepare(images, **named))[1],
    )
    [found] = grounder.ground(pictures[:1], phrases, threshold=0.0, text_threshold=0.0)
    assert texts == ["cup. spoon. cat. dog. table. person.", "red car. blue car. the car."]
    assert len(found) == 60  # 30 queries a pass
    assert set(found.class_ids) - set(range(6)), "numbers of the second pass go on"
    assert found.class_names == tuple(phrases[i] for i in found.class_ids)


def test_a_phrase_longer_than_the_model_reads_is_refused(load, pictures):
    long = " ".join(["red"] * 20)
    with pytest.raises(ValueError, match=r"has 20 tokens, and the model reads 13. Shorten it"):
        load("grounding_dino").ground(pictures, [long], threshold=0.3, text_threshold=0.3)


def test_owl_reads_phrases_one_by_one(load, tiny_detector, pictures):
    import torch
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    folder, phrases = tiny_detector("owlv2"), ["cup", "red car"]
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(
        images=[picture.pixels for picture in pictures], text=[phrases] * 2, return_tensors="pt"
    )
    with torch.inference_mode():
        outputs = model(**inputs)
    expected = processor.post_process_grounded_object_detection(
        outputs, threshold=0.1, target_sizes=[picture.hw for picture in pictures]
    )
    found = load("owlv2").ground(pictures, phrases, threshold=0.1, text_threshold=0.3)
    assert sum(len(of) for of in found) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours.boxes_xyxy - theirs["boxes"].numpy()).max(initial=0) < 1e-3
        assert np.array_equal(ours.confidence, theirs["scores"].numpy())
        assert np.array_equal(ours.class_ids, theirs["labels"].numpy())


def test_owl_refuses_a_phrase_that_is_too_long(load, pictures):
    with pytest.raises(ValueError, match="has 15 tokens, and the model reads 14"):
        load("owlv2").ground(pictures, ["abcdefghijklmno"], threshold=0.1, text_threshold=0.3)


@pytest.mark.parametrize("name", ["grounding_dino", "owlv2", "omdet_turbo"])
def test_no_phrases_find_nothing(load, pictures, name):
    found = load(name).ground(pictures, [], threshold=0.0, text_threshold=0.0)
    assert [len(of) for of in found] == [0, 0]


def test_warms_up(load):
    load("owlv2").warm_up()


def test_a_kind_whose_answers_we_cannot_read_is_refused(load):
    from sam2_blocks.executor.transformers.grounder import TransformersGrounder

    network = load("owlv2")._network
    network.config.model_type = "another"
    with pytest.raises(ModelError, match="'another', whose answers we cannot read"):
        TransformersGrounder(network)
