from __future__ import annotations

import re

import numpy as np
import pytest

from sam2_blocks.strategies.phrases import (
    NO_PHRASE,
    Caption,
    check_phrases,
    name_boxes,
    plain_phrase,
    split_phrases,
)

PHRASES = ["a Cup", "red car", "blue car", "U.S. flag"]
TOKENS = [
    "[CLS]",
    "a",
    "cup",
    ".",
    "red",
    "car",
    ".",
    "blue",
    "car",
    ".",
    "u",
    "s",
    "flag",
    ".",
    "[SEP]",
]


def offsets(text):
    """Where words and full stops are, between tokens that stand for nothing."""
    return [(0, 0), *(match.span() for match in re.finditer(r"\w+|\.", text)), (0, 0)]


def test_phrases_become_one_text():
    caption = Caption.of(PHRASES)
    assert caption.text == "a cup. red car. blue car. u s flag."
    assert [caption.text[start:stop] for start, stop in caption.spans] == [
        "a cup",
        "red car",
        "blue car",
        "u s flag",
    ]


def test_each_token_knows_its_phrase():
    caption = Caption.of(PHRASES)
    of_tokens = caption.phrases_of_tokens(offsets(caption.text))
    words = [-1, 0, 0, -1, 1, 1, -1, 2, 2, -1, 3, 3, 3, -1, -1]
    assert of_tokens.tolist() == words
    assert len(TOKENS) == len(words)


# Answers made by hand: how well a box fits tokens (all others 0), the tokens above 0.25, which are
# the library's text answer, and the phrase it is.
ANSWERS = [
    ({"a": 0.5, "cup": 0.9}, "a cup", "a Cup"),
    ({"cup": 0.9}, "cup", "a Cup"),
    ({"a": 0.4}, "a", "a Cup"),
    ({"red": 0.8, "car": 0.7}, "red car", "red car"),
    ({"red": 0.8}, "red", "red car"),
    ({"car": 0.7}, "car", "red car"),
    ({"car2": 0.7}, "car", "blue car"),
    ({"blue": 0.6, "car2": 0.3}, "blue car", "blue car"),
    ({"car": 0.6, "car2": 0.7}, "car car", "blue car"),
    ({"red": 0.6, "car": 0.6, "blue": 0.6}, "red car blue", "red car"),
    ({"red": 0.3, "car": 0.7, "blue": 0.69, "car2": 0.7}, "red car blue car", "blue car"),
    ({"cup": 0.9, ".": 0.8, "red": 0.85}, "cup . red", "a Cup"),
    ({".": 0.9, "red": 0.3}, ". red", "red car"),
    ({"[SEP]": 0.9, "flag": 0.4}, "flag [SEP]", "U.S. flag"),
    ({"u": 0.3, "s": 0.3, "flag": 0.5}, "u s flag", "U.S. flag"),
    ({"s": 0.31, "cup": 0.3}, "cup s", "U.S. flag"),
    ({"cup": 0.26}, "cup", "a Cup"),
    ({"cup": 0.25}, "", None),
    ({"[CLS]": 0.9, ".": 0.9}, "[CLS] .", None),
    ({}, "", None),
]


@pytest.mark.parametrize(("scores", "text", "phrase"), ANSWERS)
def test_a_box_belongs_to_one_phrase(scores, text, phrase):
    names = [*TOKENS]
    names[8] = "car2"
    row = np.zeros((1, len(names)), np.float32)
    for name, score in scores.items():
        row[0, names.index(name)] = score
    assert " ".join(TOKENS[i] for i in np.flatnonzero(row[0] > 0.25)) == text
    caption = Caption.of(PHRASES)
    of_tokens = caption.phrases_of_tokens(offsets(caption.text))
    [found] = name_boxes(row, of_tokens, text_threshold=0.25)
    assert (None if found == NO_PHRASE else PHRASES[found]) == phrase


def test_no_boxes_and_no_words_name_nothing():
    none = np.zeros(0, np.int64)
    assert (
        name_boxes(np.zeros((0, 3), np.float32), np.zeros(3, np.int64), text_threshold=0).size == 0
    )
    assert name_boxes(np.zeros((2, 0), np.float32), none, text_threshold=0).tolist() == [-1, -1]


def count_words(phrase):
    return len(phrase.split())


@pytest.mark.parametrize(
    ("phrases", "most", "groups"),
    [
        ([], 8, []),
        (["a", "b", "c"], 8, [[0, 1, 2]]),  # 2 around, 2 each
        (["a", "b", "c", "d"], 8, [[0, 1, 2], [3]]),
        (["a b c d e", "f"], 8, [[0], [1]]),
        (["a", "b c d", "e"], 8, [[0, 1], [2]]),
    ],
)
def test_phrases_are_split_into_texts_that_fit(phrases, most, groups):
    assert list(split_phrases(phrases, count_words, most)) == groups


def test_a_phrase_that_fits_no_text_is_refused():
    with pytest.raises(ValueError, match="the phrase 'a b c d e f' has 6 tokens, and the model re"):
        list(split_phrases(["a b c d e f"], count_words, 8))


def test_phrases_are_read_plain():
    assert plain_phrase("  The U.S.   Flag ") == "the u s flag"


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        (["cup", " . "], r"the phrase ' \. ' says nothing. Give words"),
        (["Red car", "red  car."], r"the phrases 'Red car' and 'red  car\.' are the same"),
        (["a", "b", "c"], "there are 3 phrases, and max_phrases is 2"),
    ],
)
def test_phrases_that_cannot_be_meant_are_refused(phrases, message):
    with pytest.raises(ValueError, match=message):
        check_phrases(phrases, 2)


def test_other_phrases_are_not():
    check_phrases([], 1)
    check_phrases(["red car", "blue car"], 2)
