"""The executor as its callers see it, on the smallest network."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import supervision as sv
import torch
from safetensors.torch import save_file

from sam2_blocks.errors import ImageError, ModelError
from sam2_blocks.executor import load
from sam2_blocks.executor.sam2 import encode as embed
from sam2_blocks.executor.sam2.decode import Decoder
from sam2_blocks.executor.sam2.executor import Sam2Executor
from sam2_blocks.executor.weights.layouts import MEMORY_PREFIXES, to_transformers
from sam2_blocks.executors import Executor
from sam2_blocks.testing import sample_image
from sam2_blocks.values import (
    Embedding,
    ExecutorSpec,
    Image,
    MaskPrediction,
    Prompt,
    PromptSet,
)
from tests.executor.conftest import SEED


def picture(seed: int, hw: tuple[int, int] = (90, 120)) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)
    return Image(pixels, id=f"picture {seed}")


def box_prompt(x0: float, y0: float, x1: float, y1: float) -> Prompt:
    return Prompt(box_xyxy=np.array([x0, y0, x1, y1], np.float32))


def point_prompt(*points: tuple[float, float, int]) -> Prompt:
    table = np.array(points, np.float32)
    return Prompt(point_coords=table[:, :2], point_labels=table[:, 2].astype(np.int32))


def ragged_prompts(mask: np.ndarray) -> PromptSet:
    box, points = box_prompt(10, 5, 90, 70), point_prompt((20, 30, 1), (80, 60, 0))
    return PromptSet(
        (
            point_prompt((40, 40, 1)),
            box,
            replace(box, point_coords=points.point_coords, point_labels=points.point_labels),
            points,
            Prompt(mask_input=mask),
            box_prompt(0, 0, 119, 89),
            replace(points, mask_input=mask),
        )
    )


def assert_equal(a: MaskPrediction, b: MaskPrediction) -> None:
    np.testing.assert_allclose(a.low_res_logits, b.low_res_logits, atol=1e-5)
    np.testing.assert_allclose(a.iou_prediction, b.iou_prediction, atol=1e-6)
    for one, other in zip(a.rles, b.rles, strict=True):
        assert one.size == other.size
        # Logits of random weights lie near zero everywhere: allow a pixel to flip by rounding.
        assert abs(len(one.counts) - len(other.counts)) <= 4


@pytest.fixture(scope="module")
def mask(nano: Sam2Executor, nano_embedding: Embedding) -> np.ndarray:
    prompts = PromptSet((box_prompt(10, 10, 600, 400),))
    return nano.segment([(nano_embedding, prompts)])[0].low_res_logits


def test_implements_the_protocol(nano, backend):
    assert isinstance(nano, Executor)
    if backend == "int8":
        assert nano.spec == ExecutorSpec("nano", "cpu", "int8", backend="openvino")
        assert nano.mode == "fast"
        return
    assert nano.spec == ExecutorSpec("nano", "cpu", "float32", backend=backend)
    assert nano.mode == "strict"


def test_embeddings_are_values_that_own_their_memory(nano, pictures):
    images = list(pictures.values())
    embeddings = nano.embed(images)
    assert [e.image_hw for e in embeddings] == [image.hw for image in images]
    assert [e.image_id for e in embeddings] == [image.id for image in images]
    for embedding in embeddings:
        for tensor in (embedding.image_embed, *embedding.high_res_feats):
            assert len(tensor) == 1
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
            assert not tensor.is_inference()
    assert len({e.key for e in embeddings}) == 3


def test_a_batch_equals_one_at_a_time(pictures, load_nano):
    executor = load_nano(seed=SEED, cache_bytes=0)
    images = list(pictures.values())
    for together, image in zip(executor.embed(images), images, strict=True):
        [alone] = executor.embed([image])
        torch.testing.assert_close(together.image_embed, alone.image_embed, atol=1e-5, rtol=0)


def test_read_only_and_strided_pixels(nano):
    image = picture(0, (64, 64))
    image.pixels.setflags(write=False)
    mirrored = Image(image.pixels[:, ::-1])
    copied = Image(np.ascontiguousarray(mirrored.pixels))
    assert nano.embed([mirrored])[0].key == nano.embed([copied])[0].key
    assert nano.embed([image])[0].key != nano.embed([mirrored])[0].key


def test_equal_bytes_of_another_shape_are_another_picture(nano):
    wide, tall = (Image(np.zeros((*hw, 3), np.uint8)) for hw in ((10, 20), (20, 10)))
    keys = {embedding.key for embedding in nano.embed([wide, tall])}
    assert len(keys) == 2


def test_keys_of_many_pictures_are_those_of_each(nano):
    images = [picture(seed) for seed in range(20)]
    keys = embed.embedding_keys(images, nano.model)
    assert keys == [embed.embedding_key(image, nano.model) for image in images]
    assert len(set(keys)) == 20


def test_a_picture_seen_before_is_not_encoded_again(monkeypatch, load_nano):
    executor = load_nano(seed=SEED)
    encoded: list[int] = []
    encode = embed.encode_batch
    monkeypatch.setattr(
        embed,
        "encode_batch",
        lambda model, batch, *more: encoded.append(len(batch)) or encode(model, batch, *more),
    )
    first, second = picture(1), picture(2)
    executor.embed([first, second, first])
    renamed = executor.embed([replace(first, id="another name")])[0]
    assert sum(encoded) == 2
    assert renamed.image_id == "another name"
    stats = executor.cache_stats()
    assert (stats.hits, stats.misses, stats.entries) == (2, 2, 2)
    assert stats.nbytes == 2 * renamed.nbytes


def test_pictures_that_nobody_asks_for_are_forgotten(load_nano):
    executor = load_nano(seed=SEED)
    prompts = PromptSet.from_boxes([[1, 1, 9, 9]])
    for seed in range(3):
        [embedding] = executor.embed([picture(seed)])
        executor.segment([(embedding, prompts)])
        executor.forget_unused()
    assert executor.cache_stats().entries == 1
    assert executor.decoder_cache_stats().entries == 1


def test_ragged_prompts_of_several_images_equal_one_at_a_time(nano, mask):
    embeddings = nano.embed([picture(3), picture(4)])
    prompts = ragged_prompts(mask)
    together = nano.segment([(embeddings[0], prompts), (embeddings[1], prompts)])
    for embedding, prediction in zip(embeddings, together, strict=True):
        assert len(prediction) == len(prompts)
        for index, prompt in enumerate(prompts.prompts):
            [alone] = nano.segment([(embedding, PromptSet((prompt,)))])
            assert_equal(
                alone,
                replace(
                    prediction,
                    rles=prediction.rles[index : index + 1],
                    iou_prediction=prediction.iou_prediction[index : index + 1],
                    low_res_logits=prediction.low_res_logits[index : index + 1],
                ),
            )


@pytest.mark.parametrize("multimask_output", [True, False])
def test_sharing_the_image_side_changes_nothing(
    monkeypatch, nano, mask, multimask_output, load_nano
):
    """The fast decoder is bit for bit the network's own forward pass on two prompts and more.

    But for the order of sums where prompts are folded into the image, which is left out here.
    """
    plain = load_nano(seed=7)
    plain._decoder._shared = False
    monkeypatch.setattr(nano._decoder, "_may_fold", False)
    prompts = ragged_prompts(mask).prompts
    items = [(nano.embed([picture(6)])[0], PromptSet((*prompts, *prompts)))]
    options = {"multimask_output": multimask_output, "return_candidates": True}
    monkeypatch.setattr(nano, "_workers", None)
    monkeypatch.setattr(plain, "_workers", None)
    [ours], [theirs] = nano.segment(items, **options), plain.segment(items, **options)
    assert np.array_equal(ours.candidates.low_res_logits, theirs.candidates.low_res_logits)
    assert np.array_equal(ours.candidates.iou_prediction, theirs.candidates.iou_prediction)


def test_no_prompts_is_an_empty_prediction(nano, nano_embedding):
    some = PromptSet((box_prompt(0, 0, 50, 50),))
    empty, full = nano.segment([(nano_embedding, PromptSet()), (nano_embedding, some)])
    assert (len(empty), len(full)) == (0, 1)
    assert empty.low_res_logits.shape == (0, *nano.model.low_res_hw)
    assert empty.mask_box_xyxy.shape == (0, 4)
    assert nano.segment([]) == []
    assert nano.embed([]) == []


def test_the_chosen_candidate_has_the_highest_predicted_iou(nano, nano_embedding):
    boxes = PromptSet.from_boxes([[10, 10, 300, 200], [50, 80, 90, 400]])
    [prediction] = nano.segment([(nano_embedding, boxes)], return_candidates=True)
    candidates = prediction.candidates
    assert candidates.iou_prediction.shape == (2, 3)
    best = candidates.iou_prediction.argmax(1)
    assert np.array_equal(prediction.iou_prediction, candidates.iou_prediction.max(1))
    assert np.array_equal(prediction.low_res_logits, candidates.low_res_logits[[0, 1], best])
    for i in range(2):
        assert np.array_equal(prediction.rles[i].counts, candidates.rles[i][best[i]].counts)


def test_area_filters_remove_small_parts(nano, nano_embedding):
    items = [(nano_embedding, PromptSet.from_boxes([[10, 10, 300, 200]]))]
    [raw] = nano.segment(items)
    [clean] = nano.segment(items, max_hole_area=20, max_sprinkle_area=20)
    assert len(clean.rles[0].counts) < len(raw.rles[0].counts)
    assert np.array_equal(clean.low_res_logits, raw.low_res_logits)


def test_out_of_memory_halves_the_chunk_of_prompts(monkeypatch, nano, nano_embedding):
    """On devices without workers of their own, that is, not on a CPU."""
    decode, sizes = Decoder.decode, []

    def limited(self, rows, *, multimask_output):
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("simulated")
        return decode(self, rows, multimask_output=multimask_output)

    items = [(nano_embedding, PromptSet.from_boxes([[i, i, 200 + i, 150] for i in range(9)]))]
    [expected] = nano.segment(items)
    monkeypatch.setattr(nano, "_workers", None)
    monkeypatch.setattr(Decoder, "decode", limited)
    monkeypatch.setattr(Decoder, "chunk_size", 8)
    [halved] = nano.segment(items)
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert_equal(halved, expected)


def test_threads_share_an_executor(load_nano):
    executor = load_nano(seed=7)
    images = [picture(seed) for seed in range(4)]
    prompts = PromptSet.from_boxes([[10, 10, 80, 60], [5, 20, 110, 85]])
    [expected] = executor.segment([(executor.embed(images[:1])[0], prompts)])
    barrier = threading.Barrier(8)

    def work(thread: int) -> list[MaskPrediction]:
        barrier.wait()
        order = images[thread % 4 :] + images[: thread % 4]
        found = {e.image_id: e for e in executor.embed(order)}
        return executor.segment([(found[image.id], prompts) for image in images])

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    for predictions in results:
        for a, b in zip(predictions, results[0], strict=True):
            assert_equal(a, b)
        assert_equal(predictions[0], expected)
    assert executor.cache_stats().misses == 4


def test_half_precision_stays_inside_our_calls(nano_embedding, load_nano):
    executor = load_nano(seed=7, dtype="bfloat16")
    assert executor.mode == "fast"
    [embedding] = executor.embed([picture(5)])
    assert embedding.image_embed.dtype == torch.bfloat16
    [prediction] = executor.segment([(embedding, PromptSet.from_boxes([[10, 10, 80, 60]]))])
    assert prediction.low_res_logits.dtype == np.float32
    assert not torch.is_autocast_enabled("cpu")
    assert not torch.is_inference_mode_enabled()


def test_an_embedding_is_found_by_its_key_while_the_cache_holds_it(load_nano):
    executor = load_nano(seed=SEED, cache_entries=1)
    [first] = executor.embed([picture(1)])
    assert executor.find(first.key) is first
    executor.embed([picture(2)])
    assert executor.find(first.key) is None


def test_warm_up_leaves_nothing_in_the_cache(load_nano):
    executor = load_nano(seed=7)
    executor.warm_up()
    assert executor.cache_stats().entries == 0


def test_an_embedding_of_another_model_is_refused(nano, tiny, nano_embedding, load_nano):
    prompts = PromptSet.from_boxes([[10, 10, 80, 60]])
    with pytest.raises(
        ValueError, match=r"image 'photo' was made by 'nano@seed-7/float32\S*' .* but "
    ):
        tiny.segment([(nano_embedding, prompts)])
    other_weights = load_nano(seed=8)
    with pytest.raises(ValueError, match=r"this executor is 'nano@seed-8/float32"):
        other_weights.segment([(nano_embedding, prompts)])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(), r"image 'photo': prompt 1 is empty"),
        (box_prompt(0, 0, np.nan, 9), r"image 'photo': prompt 1: box .* is not finite"),
        (box_prompt(9, 9, 0, 0), r"image 'photo': prompt 1: box .* is inverted"),
        (box_prompt(5000, 0, 6000, 9), r"image 'photo': prompt 1: box .* lies wholly outside"),
        (
            Prompt(point_coords=np.ones((1, 2), np.float32), point_labels=np.full(1, 2, np.int32)),
            r"image 'photo': prompt 1: point_labels must be 1",
        ),
        (
            Prompt(mask_input=np.zeros((1, 7, 7), np.float32)),
            r"prompt 1: mask_input wants logits of shape \(1, (\d+), \1\), got \(1, 7, 7\)",
        ),
        (
            Prompt(point_coords=np.zeros((2, 2), np.float32), point_labels=np.ones(1, np.int32)),
            r"image 'photo': prompt 1: point_labels wants 2 labels, got shape \(1,\)",
        ),
    ],
)
def test_malformed_prompts_are_named(nano, nano_embedding, prompt, message):
    prompts = PromptSet((box_prompt(0, 0, 9, 9), prompt))
    with pytest.raises(ValueError, match=message):
        nano.segment([(nano_embedding, prompts)])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), "wants an Image, got ndarray. Make one with read_image"),
        (
            Image(np.zeros((4, 4, 3)), "cat"),
            "image 'cat': wants a uint8 array .* got float64 array",
        ),
        (Image(np.zeros((4, 4), np.uint8), "cat"), r"image 'cat': wants shape \(H, W, 3\)"),
        (Image(np.zeros((0, 5, 3), np.uint8), "cat"), r"image 'cat': wants shape \(H, W, 3\)"),
    ],
)
def test_what_is_no_picture_is_refused(nano, image, message):
    with pytest.raises(ImageError, match=message):
        nano.embed([image])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda e: (sample_image(), PromptSet()),
            "wants an Embedding .* got Image. Encode",
        ),
        (
            lambda e: ("a.png", PromptSet()),
            "item 0: wants an Embedding .* got str",
        ),
        (lambda e: e, r"item 0: wants a pair \(embedding, prompts\), got Embedding"),
        (lambda e: (e, None), "wants prompts: a PromptSet, .* got NoneType"),
    ],
)
def test_what_is_no_embedding_with_prompts_is_refused(nano, nano_embedding, make, message):
    with pytest.raises(TypeError, match=message):
        nano.segment([make(nano_embedding)])


def test_detections_are_prompts(nano, nano_embedding):
    boxes = [[10, 10, 60, 50], [5, 5, 20, 20]]
    [expected] = nano.segment([(nano_embedding, PromptSet.from_boxes(boxes))])
    [found] = nano.segment([(nano_embedding, sv.Detections(np.array(boxes, float)))])
    assert_equal(found, expected)


@pytest.mark.parametrize("option", [{"mask_threshold": np.nan}, {"max_hole_area": -1}])
def test_options_out_of_range_are_refused(nano, nano_embedding, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} wants"):
        nano.segment([(nano_embedding, PromptSet.from_points([[5, 5]]))], **option)


def test_what_the_decoder_keeps_is_bounded_by_the_setting_of_the_cache(pictures, load_nano):
    prompts = PromptSet.from_points([[5, 5], [9, 9], [20, 20]])
    images = list(pictures.values())
    kept, none = load_nano(seed=SEED), load_nano(seed=SEED, cache_bytes=0)
    for executor in (kept, none):
        [embedding] = executor.embed(images[:1])
        executor.segment([(embedding, prompts)])
    assert kept.decoder_cache_stats().nbytes > 0
    assert (none.decoder_cache_stats().entries, none.decoder_cache_stats().nbytes) == (0, 0)
    assert none.decoder_cache_stats().misses == 1  # once for all prompts, as ever
    small = load_nano(seed=SEED, cache_bytes=kept.decoder_cache_stats().nbytes)
    for image in images[:2]:
        [embedding] = small.embed([image])
        small.segment([(embedding, prompts)])
    assert small.decoder_cache_stats().entries == 1


def test_a_device_is_not_used_in_a_forked_child(monkeypatch, nano_embedding, load_nano):
    executor = load_nano(seed=SEED)
    monkeypatch.setattr(executor, "_forked", True)
    with pytest.raises(ModelError, match=r"before this process was forked.*method 'spawn'"):
        executor.embed([sample_image()])
    with pytest.raises(ModelError, match="Load the model in the child"):
        executor.segment([(nano_embedding, PromptSet())])


def test_one_picture_is_no_list(nano):
    with pytest.raises(ImageError, match=r"wants a list of pictures, got one. Give embed\(\[image"):
        nano.embed(sample_image())


def test_weights_for_pictures_alone_segment_and_do_not_track(tmp_path):
    """A ``Sam2Model`` of the transformers library, whose file has its own names."""
    state = load("nano", device="cpu").model.network.state_dict()
    state = {name: t for name, t in state.items() if not name.startswith(MEMORY_PREFIXES)}
    save_file(to_transformers(state, source="nano"), tmp_path / "model.safetensors")
    executor = load(tmp_path, device="cpu", config="nano")
    expected = load("nano", device="cpu")
    image = Image(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
    prompts = PromptSet.from_boxes([[5, 5, 40, 40]])
    found, same = (e.segment([(e.embed([image])[0], prompts)])[0] for e in (executor, expected))
    assert np.array_equal(found.low_res_logits, same.low_res_logits)
    with pytest.raises(ModelError, match="those of a Sam2Model, for pictures alone"):
        executor.track()
