"""Arrays of prompts are float32 and int32 of the right shape, or refused by the prompt's name."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_blocks.prompt_arrays import to_box, to_labels, to_mask_input, to_points


@pytest.mark.parametrize(
    ("make", "given", "shape"),
    [
        (to_box, [1, 2, 3, 4], (4,)),
        (to_points, [[1, 2], [3, 4], [5, 6]], (3, 2)),
        (to_points, [], (0, 2)),
        (to_mask_input, np.zeros((1, 4, 5), np.float64), (1, 4, 5)),
    ],
)
def test_numbers_become_float32_of_the_shape(make, given, shape):
    made = make(given, "prompt 3")
    assert (made.dtype, made.shape) == (np.float32, shape)


def test_labels_become_int32():
    labels = to_labels([1.0, 0.0], 2, "prompt 3")
    assert (labels.dtype, labels.tolist()) == (np.int32, [1, 0])


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (to_box, [1, 2, 3], r"^prompt 3: a box wants 4 numbers, got shape \(3,\)\.$"),
        (to_box, [1, 2, 3, 4, 0.9], "probably confidence and class: give the four edges alone"),
        (to_points, [1, 2], r"wants shape \(P, 2\), got \(2,\)\. For one point give \[\[x, y\]\]"),
        (to_points, [[1, 2, 1]], "third column is probably the label"),
        (to_mask_input, np.zeros((4, 5)), r"wants logits \(1, h, w\), got shape \(4, 5\)"),
        (to_mask_input, np.full((1, 2, 2), np.nan), "has values that are not finite"),
    ],
)
def test_what_has_another_shape_is_refused_with_a_hint(make, given, message):
    with pytest.raises(ValueError, match=message):
        make(given, "prompt 3")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1], r"^prompt 3: point_labels wants 2 labels, got shape \(1,\)$"),
        ([1, 2], r"point_labels must be 1 \(foreground\) or 0 \(background\), got \[1, 2\]"),
    ],
)
def test_labels_are_one_a_point_and_0_or_1(labels, message):
    with pytest.raises(ValueError, match=message):
        to_labels(labels, 2, "prompt 3")
