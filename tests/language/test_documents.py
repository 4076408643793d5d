from __future__ import annotations

import pytest

from sam2_blocks.language.documents import MAX_DEPTH, parse_yaml


def messages(text):
    return [problem.render("f.yaml") for problem in parse_yaml(text, "f.yaml").problems]


def test_values_keep_their_types_and_places():
    document = parse_yaml("a: 1\nb: [x, true, null, 1.5, 2020-01-01]\n")
    assert document.data == {"a": 1, "b": ["x", True, None, 1.5, "2020-01-01"]}
    assert document.positions["b", 3] == (2, 20)
    assert not document.problems


def test_yes_and_no_are_text_as_in_yaml_1_2():
    assert parse_yaml("a: [yes, no, on]").data == {"a": ["yes", "no", "on"]}


def test_a_key_given_twice_is_reported_with_both_lines():
    assert messages("a: 1\nb: 2\na: 3\n") == [
        "f.yaml:3:1: a: key 'a' is given twice; the first is in line 1. Keep one."
    ]


def test_every_problem_is_reported():
    assert len(messages("a: 1\na: 2\nb: !!python/name:os.system x\n? [k]\n: 1\n")) == 3


def test_a_python_tag_is_refused():
    [message] = messages("a: !!python/object/apply:os.system ['ls']")
    assert "f.yaml:1:4" in message


def test_aliases_that_multiply_are_cut_off():
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    [message] = messages("\n".join(lines))
    assert "do aliases multiply it?" in message


def test_an_alias_may_be_used():
    assert parse_yaml("a: &x [1]\nb: *x\n").data == {"a": [1], "b": [1]}


@pytest.mark.parametrize("text", ["a: &x [*x]", "[" * (MAX_DEPTH + 5), "[" * 5000])
def test_endless_nesting_is_refused(text):
    assert messages(text)


@pytest.mark.parametrize("text", ["a: !!int abc", "a: !!bool abc", "a: " + "9" * 5000])
def test_a_value_that_is_none_of_its_type_is_reported(text):
    [message] = messages(text)
    assert message.startswith("f.yaml:1:4: a: not a valid")


def test_what_looks_like_a_date_is_text():
    assert parse_yaml("a: 2024-13-45").data == {"a": "2024-13-45"}


def test_endless_nesting_is_reported_once():
    assert len(messages("a: &x [*x, *x]")) == 1


def test_broken_yaml_says_where():
    assert messages("a: [1,\nb: 2")[0].startswith("f.yaml:2")


def test_an_empty_document_is_a_problem():
    assert messages("# nothing\n") == ["f.yaml: the document is empty"]
