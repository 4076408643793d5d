from __future__ import annotations

import pytest

from sam2_blocks.hosts.labelstudio.config import picture_of, read_config
from sam2_blocks.service.errors import RequestError
from tests.hosts.labelstudio.projects import PLAIN, config


def test_pictures_and_controls_are_read():
    read = read_config(config())
    assert read.pictures == {"image": "picture"}
    assert [(one.name, one.type, one.form) for one in read.controls] == [
        ("click", "keypointlabels", "keypoint"),
        ("around", "rectanglelabels", "rectangle"),
        ("mask", "brushlabels", "brush"),
    ]


@pytest.mark.parametrize(
    ("control", "taken"),
    [("BrushLabels", "mask"), ("PolygonLabels", "mask"), ("EllipseLabels", "around")],
)
def test_masks_go_to_the_most_exact_tag(control, taken):
    assert read_config(config(control)).target().control.name == taken


def test_plain_tags_are_labelled_by_the_labels_beside_them():
    target = read_config(PLAIN).target("image")
    assert (target.control.name, target.labelled_by.name) == ("mask", "label")


@pytest.mark.parametrize(
    ("class_name", "label"),
    [("cup", "cup"), ("CUP", "cup"), ("plate", "plate"), ("Saucer", "plate"), ("dog", None)],
)
def test_a_class_is_a_label_by_its_name_alias_or_predicted_values(class_name, label):
    assert read_config(config()).target().label_of(class_name) == label


def test_a_single_label_takes_objects_without_a_class():
    target = read_config(config(labels='<Label value="cell"/>')).target()
    assert [target.label_of(name) for name in ("object", "", "dog")] == ["cell", "cell", None]
    assert target.check_labels(["anything"]) == ("cell",)


def test_labels_that_only_tasks_know_are_taken_as_they_are():
    target = read_config(config(labels="")).target()
    assert target.check_labels(["a", "b"]) == ("a", "b")
    assert (target.label_of("dog"), target.label_of("object")) == ("dog", None)


def test_an_unknown_label_is_named():
    target = read_config(config()).target()
    assert target.check_labels(["plate", "cup"]) == ("plate", "cup")
    with pytest.raises(RequestError, match=r"label 'fork' is none of 'mask', which has \['cup'"):
        target.check_labels(["fork"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<View>", "is no XML"),
        ("", "is no XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View/>', "no DOCTYPE"),
        ("<View>" + " " * 1_000_000, "at most 1000000 characters"),
    ],
)
def test_a_config_that_is_none(text, message):
    with pytest.raises(RequestError, match=message):
        read_config(text)


@pytest.mark.parametrize(
    ("text", "picture", "message"),
    [
        ("<View/>", None, "has no <Image"),
        (config(), "photo", "has no <Image> 'photo'"),
        (config("Choices", smart=""), None, "has no tag that takes masks: add <BrushLabels>"),
    ],
)
def test_a_config_that_takes_no_masks(text, picture, message):
    with pytest.raises(RequestError, match=message):
        read_config(text).target(picture)


def test_the_address_of_a_picture():
    assert picture_of({"picture": "/a.jpg"}, "picture") == "/a.jpg"
    assert picture_of({"a": {"b": "/a.jpg"}}, "a.b") == "/a.jpg"
    for data in ({}, {"a": 1}, {"a": {"b": 3}}, {"a": {"b": ""}}):
        with pytest.raises(RequestError, match=r"no address of a picture in 'a\.b'"):
            picture_of(data, "a.b")
