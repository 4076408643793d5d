import copy
import pickle

import numpy as np
import pytest
import supervision as sv
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from supervision.detection.compact_mask import CompactMask

from sam2_blocks.masks.rle import Rle, mask_to_rle, rle_to_mask
from sam2_blocks.masks.stack import MaskStack

STACKS = st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda nhw: arrays(bool, nhw)
)


@pytest.fixture
def pixels():
    made = np.random.default_rng(1).random((3, 8, 11)) > 0.6
    made[2] = False
    return made


@pytest.fixture
def masks(pixels):
    return MaskStack.of(pixels)


@given(STACKS)
def test_pixels_and_run_lengths_survive(pixels):
    masks = MaskStack.of(pixels)
    assert np.array_equal(masks.to_dense(), pixels)
    decoded = [rle_to_mask(rle) for rle in masks.to_rles()]
    assert np.array_equal(np.array(decoded).reshape(pixels.shape), pixels)


@given(STACKS)
def test_run_lengths_of_a_stack_are_those_of_its_masks(pixels):
    wanted = [mask_to_rle(mask).counts.tolist() for mask in pixels]
    assert [rle.counts.tolist() for rle in MaskStack.of(pixels).to_rles()] == wanted


def test_loose_crops_of_others_have_the_same_run_lengths(pixels):
    loose = CompactMask.from_dense(pixels, np.tile([0, 0, 10, 7], (3, 1)), (8, 11))
    wanted = [rle.counts.tolist() for rle in MaskStack.of(pixels).to_rles()]
    assert [rle.counts.tolist() for rle in MaskStack.of(loose).to_rles()] == wanted


ARRAY_USES = {
    "any": lambda m: m.any(),
    "any by axis": lambda m: m.any(axis=(1, 2)),
    "all": lambda m: m.all(axis=0),
    "astype": lambda m: m.astype(np.uint8) * 255,
    "ndim": lambda m: m.ndim,
    "size": lambda m: m.size,
    "shape": lambda m: m.shape,
    "squeeze": lambda m: m[:1].squeeze(),
    "invert": lambda m: ~m,
    "or": lambda m: m | m[::-1],
    "or with an array": lambda m: np.eye(8, 11, dtype=bool) | m,
    "and": lambda m: m & ~m,
    "xor": lambda m: m ^ True,
    "times": lambda m: m * 2.5,
    "window": lambda m: m[:, 2:7, 1:4],
    "pixel": lambda m: m[1, 2, 3],
    "window of one": lambda m: m[0, :3],
    "new axis": lambda m: m[None],
    "ellipsis": lambda m: m[..., 0],
    "by pixels": lambda m: m[np.asarray(m)],
    "one": lambda m: m[-1],
    "rows": lambda m: np.asarray(m[[2, 0]]),
    "rows by bools": lambda m: np.asarray(m[np.array([True, False, True])]),
    "np.sum": lambda m: np.sum(m, axis=(1, 2)),
    "np.sum of all": lambda m: np.sum(m),
    "np.any": lambda m: np.any(m, axis=0),
    "np.where": lambda m: np.where(m)[0],
    "np.logical_or.reduce": lambda m: np.logical_or.reduce(m),
    "np.stack": lambda m: np.stack([m, m]),
    "mean": lambda m: m.mean(axis=(1, 2)),
    "transpose": lambda m: m.transpose(1, 2, 0),
    "T": lambda m: m.T,
    "tolist": lambda m: m.tolist(),
    "mask_to_xyxy": lambda m: sv.mask_to_xyxy(m),
    "iterate": lambda m: [one.sum() for one in m],
}


@pytest.mark.parametrize("use", ARRAY_USES.values(), ids=ARRAY_USES)
def test_it_answers_as_an_array_does(masks, pixels, use):
    found, wanted = use(masks), use(pixels)
    assert np.array_equal(found, wanted)
    assert np.shape(found) == np.shape(wanted)


def test_no_masks_answer_as_no_array_does():
    none = MaskStack.of(np.zeros((0, 4, 5), bool))
    assert none.shape == (0, 4, 5)
    assert not none.any()
    assert sv.mask_to_xyxy(none).shape == (0, 4)


@pytest.mark.parametrize(
    "made",
    [
        lambda m: m[1:],
        lambda m: m[[True, False, True]],
        lambda m: m[np.array([1, 0])],
        lambda m: m[[]],
        lambda m: m.copy(),
        lambda m: m.with_offset(1, 2, (20, 20)),
        lambda m: m.resize((4, 5)),
        lambda m: m.repack(),
        copy.deepcopy,
        lambda m: pickle.loads(pickle.dumps(m)),
        MaskStack.of,
    ],
)
def test_it_stays_compact(masks, made):
    assert isinstance(made(masks), MaskStack)


def test_assigning_is_seen_and_copies_are_their_own(masks, pixels):
    copied, part = masks.copy(), masks[1:]
    masks[1, 2:4] = True
    wanted = pixels.copy()
    wanted[1, 2:4] = True
    assert np.array_equal(masks, wanted)
    assert np.array_equal(copied, pixels)
    assert np.array_equal(part, pixels[1:])


def test_it_can_be_changed_in_place(masks, pixels):
    same = masks
    masks |= np.eye(8, 11, dtype=bool)
    assert same is masks
    assert np.array_equal(masks, pixels | np.eye(8, 11, dtype=bool))


def test_whole_masks_are_compared(masks, pixels):
    assert masks == MaskStack.of(pixels)
    assert masks == pixels
    assert masks != ~pixels
    assert repr(masks) == "MaskStack(shape=(3, 8, 11))"


def test_a_name_no_array_has_is_no_attribute(masks):
    with pytest.raises(AttributeError, match="'MaskStack' object has no attribute 'anny'"):
        masks.anny()


def test_masks_of_one_picture_have_one_size():
    rles = [Rle((2, 2), np.array([4])), Rle((2, 3), np.array([6]))]
    with pytest.raises(ValueError, match=r"mask 1 has size \(2, 3\), the others \(2, 2\)"):
        MaskStack.from_rles(rles, (2, 2))


def test_a_box_that_supervision_cannot_count_is_refused():
    side = 2**16
    rle = Rle((side, side), np.array([0, side * side]))
    with pytest.raises(ValueError, match="a mask's box has more than 2147483647 pixels"):
        MaskStack.from_rles([rle], (side, side))
