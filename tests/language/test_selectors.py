from __future__ import annotations

import pytest

from sam2_blocks.language.selectors import (
    DefaultRef,
    EachRef,
    IndexRef,
    InputRef,
    StepRef,
    iter_refs,
    iter_selectors,
    parse_selectors,
    resolve,
    rewire,
)

IMAGE, BOXES = InputRef("image"), StepRef("detect", "boxes")


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ("$inputs.image", IMAGE),
        ("$steps.detect.boxes", BOXES),
        (["$inputs.image", 1], [IMAGE, 1]),
        ({"a": {"b": "$steps.detect.boxes"}}, {"a": {"b": BOXES}}),
        ("$$5", "$5"),
        ("5 $", "5 $"),
        (None, None),
    ],
)
def test_selectors_are_found_anywhere_in_a_value(value, parsed):
    assert parse_selectors(value) == parsed


@pytest.mark.parametrize("selector", [IMAGE, BOXES])
def test_a_selector_is_written_as_it_is_read(selector):
    assert parse_selectors(str(selector)) == selector


@pytest.mark.parametrize(
    "text", ["$", "$inputs", "$inputs.", "$steps.a", "$inputs.a.b", "$other.a"]
)
def test_what_begins_like_a_selector_and_is_none_says_how_to_write_one(text):
    with pytest.raises(
        ValueError, match=r"is no selector; write \$inputs\.NAME or .* literal doll"
    ):
        parse_selectors([text])


def test_a_value_lists_its_selectors_and_is_resolved_through_them():
    value = {"a": [IMAGE, {"b": BOXES}], "c": "text"}
    assert list(iter_selectors(value)) == [IMAGE, BOXES]
    assert resolve(value, str) == {
        "a": ["$inputs.image", {"b": "$steps.detect.boxes"}],
        "c": "text",
    }


def test_what_stands_for_an_element_leads_to_its_list():
    assert parse_selectors("$each") == EachRef()
    assert parse_selectors(["$index"]) == [IndexRef()]
    value = {"a": [EachRef(BOXES), IndexRef()], "b": DefaultRef(IMAGE, 3)}
    assert list(iter_refs(value)) == [BOXES, IMAGE]


def test_rewiring_keeps_what_is_around_a_selector():
    other = StepRef("outer.detect", "boxes")
    changed = rewire([EachRef(BOXES), IMAGE, IndexRef(), 1], {BOXES: other, IMAGE: 7}.get)
    assert changed == [EachRef(other), 7, IndexRef(), 1]
    default = rewire(DefaultRef(BOXES, 3), {BOXES: other}.get)
    assert (default.of, default.value) == (other, 3)
    assert rewire(DefaultRef(IMAGE, 3), {IMAGE: 7}.get) == 7
