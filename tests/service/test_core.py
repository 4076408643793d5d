from __future__ import annotations

import io
import threading
from dataclasses import replace

import numpy as np
import pytest

from sam2_blocks.executor.cache.files import embedding_to_bytes, read_entry
from sam2_blocks.masks.rle import coco_to_rle, rle_to_mask
from sam2_blocks.options import AutomaticSettings
from sam2_blocks.service.errors import (
    ImageConflictError,
    ImageRefusedError,
    RequestError,
    ShuttingDownError,
    TooLargeError,
    UnknownImageError,
    UnknownModelError,
)
from sam2_blocks.strategies.automatic import generate_masks
from sam2_blocks.testing import FakeExecutor, sample_embedding
from sam2_blocks.values import Image, Prompt, PromptSet
from tests.service.conftest import (
    EVERY_WAY,
    PICTURE,
    PROMPTS,
    as_request,
    assert_same_masks,
    box,
    embed,
    fresh,
    library_call,
    masks_of,
    picture,
    point,
    segment,
    segment_together,
)


def load_npz(answer):
    return np.load(io.BytesIO(answer))


EVERYTHING = {
    "points_per_side": 3,
    "pred_iou_thresh": 0,
    "stability_score_thresh": 0,
    "box_nms_thresh": 1,
}


def everything(executor, **options):
    [embedding] = executor.embed([PICTURE])
    settings = AutomaticSettings(**EVERYTHING, **options)
    return generate_masks(executor, embedding, settings).prediction


@pytest.mark.parametrize("multimask_output", [True, False])
def test_automatic_masks_are_the_librarys_own(make_service, nano_executor, multimask_output):
    answer = segment(
        make_service(),
        PICTURE,
        format="rle",
        automatic_masks=EVERYTHING,
        multimask_output=multimask_output,
    )
    expected = everything(nano_executor, multimask_output=multimask_output)
    got = [rle_to_mask(coco_to_rle(row.masks)) for row in answer.predictions]
    assert len(got) > 1
    assert (np.array(got) == masks_of(expected)).all()
    assert [row.confidence for row in answer.predictions] == expected.iou_prediction.tolist()
    assert answer.unprompted is None


def test_automatic_masks_may_be_none(make_service):
    strict = {"points_per_side": 2, "pred_iou_thresh": 1}
    service = make_service()
    assert segment(service, PICTURE, automatic_masks=strict).predictions == []
    arrays = load_npz(segment(service, PICTURE, format="binary", automatic_masks=strict))
    assert arrays["masks"].shape == (0, *PICTURE.hw)


def test_automatic_masks_of_a_model_that_needs_prompts(make_service):
    class Plain:
        def __init__(self):
            self.spec = FakeExecutor("mine").spec

        def embed(self, images):
            return [sample_embedding(image, self.spec) for image in images]

        segment = FakeExecutor.segment

    with pytest.raises(RequestError, match="automatic_masks: the model 'mine' needs prompts"):
        segment(make_service(executor=Plain()), PICTURE, automatic_masks=True)


def test_an_embedding_comes_as_tensors_when_asked(make_service, nano_executor):
    arrays = load_npz(embed(make_service(), PICTURE, format="binary"))
    [embedding] = nano_executor.embed([PICTURE])
    assert (arrays["image_embed"] == embedding.image_embed.numpy()).all()
    assert arrays["image_embed"].dtype == np.float32
    for index, features in enumerate(embedding.high_res_feats):
        assert (arrays[f"high_res_feats_{index}"] == features.numpy()).all()
    assert arrays["image_hw"].tolist() == [60, 80]


@EVERY_WAY
def test_an_image_embedded_under_a_name_needs_not_be_sent_again(make_service):
    service = make_service()
    assert embed(service, PICTURE, image_id="cat").image_id == "cat"
    again = segment(service, None, PROMPTS, image_id="cat", format="rle")
    sent = segment(service, PICTURE, PROMPTS, format="rle")
    assert again.predictions == sent.predictions
    assert service.models.default.cache_stats().misses == 1


def test_the_automatic_name_can_be_used_too(make_service):
    service = make_service()
    name = embed(service, PICTURE).image_id
    assert len(name) == 32
    assert segment(service, None, PROMPTS, image_id=name).predictions


@EVERY_WAY
def test_an_embedding_that_was_evicted_is_unknown(make_service):
    service = make_service(embedding_entries=1)
    embed(service, PICTURE, image_id="cat")
    embed(service, picture(1), image_id="dog")
    with pytest.raises(UnknownImageError, match="its embedding is not kept any more"):
        segment(service, None, PROMPTS, image_id="cat")
    assert segment(service, PICTURE, PROMPTS, image_id="cat").predictions


@EVERY_WAY
def test_replace_lets_a_name_move_to_other_pixels(make_service):
    service = make_service(on_conflict="replace")
    embed(service, PICTURE, image_id="cat")
    embed(service, picture(1), image_id="cat")
    moved = segment(service, None, PROMPTS, image_id="cat", format="rle")
    assert moved.predictions == segment(service, picture(1), PROMPTS, format="rle").predictions


def test_an_executor_without_a_cache_knows_no_names(make_service):
    service = make_service(executor=FakeExecutor("nano"))
    embed(service, PICTURE, image_id="cat")
    with pytest.raises(UnknownImageError, match="not kept"):
        segment(service, None, PROMPTS, image_id="cat")


def test_cached_logits_are_used_as_mask_input_and_change_the_result(make_service, nano_executor):
    service = make_service()
    first, second = [point(20, 20)], [point(20, 20), point(50, 40)]
    segment(service, PICTURE, {"points": first}, save_logits_to_cache=True)
    refined, plain = (
        load_npz(
            segment(
                service,
                PICTURE,
                {"points": second},
                format="binary",
                load_logits_from_cache=load,
            )
        )["low_res_masks"]
        for load in (True, False)
    )
    earlier = library_call(nano_executor, {"points": first})
    coords, labels = np.float32([[20, 20], [50, 40]]), np.ones(2, np.int32)
    prompts = PromptSet((Prompt(None, coords, labels, earlier.low_res_logits),))
    [embedding] = nano_executor.embed([PICTURE])
    [expected] = nano_executor.segment([(embedding, prompts)])
    assert (refined == expected.low_res_logits).all()
    assert not np.array_equal(refined, plain)


def test_logits_are_neither_saved_nor_used_unless_asked(make_service):
    service = make_service()
    segment(service, PICTURE, {"points": [point(20, 20)]})
    assert len(service._logits) == 0


def test_a_switched_off_logits_cache_keeps_nothing(make_service):
    service = make_service(logits_entries=0)
    segment(service, PICTURE, PROMPTS, save_logits_to_cache=True)
    assert len(service._logits) == 0


def test_logits_are_looked_for_beside_the_event_loop(make_service, monkeypatch):
    service = make_service()
    threads = {}
    for name in ("load", "save"):
        method = getattr(service._logits, name)

        def watched(*args, name=name, method=method, **options):
            threads[name] = threading.current_thread()
            return method(*args, **options)

        monkeypatch.setattr(service._logits, name, watched)
    switches = {"save_logits_to_cache": True, "load_logits_from_cache": True}
    segment(service, PICTURE, PROMPTS, **switches)
    assert set(threads) == {"load", "save"}
    assert threading.current_thread() not in threads.values()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"image": as_request(PICTURE), "sam2_version_id": "x"}, UnknownModelError, "no model 'x'"),
        ({"image_id": "nobody"}, UnknownImageError, "'nobody' is not known"),
        ({"image": {"type": "base64", "value": "xx"}}, ImageRefusedError, "^image: "),
        (
            {"image": as_request(PICTURE), "prompts": [box(100, 0, 120, 9)]},
            RequestError,
            r"^prompts: prompt 0: box .* lies wholly outside the 80x60 image; is it in .* image\?$",
        ),
        (
            {"image": as_request(PICTURE), "prompts": [box(0, 0, 9, 9)] * 5},
            TooLargeError,
            "prompts: there are 5, the limit is 4",
        ),
        (
            {"image": as_request(PICTURE), "prompts": {"points": [point(1, 1)] * 4}},
            TooLargeError,
            "prompts: one has 4 points, the limit is 3",
        ),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(make_service, fields, error, message):
    service = make_service(max_prompts=4, max_points=3)
    with pytest.raises(error, match=message):
        segment(service, **fields)


OUTSIDE = "prompt 1: box [100, 0, 120, 9] lies wholly outside the 80x60 image"


@pytest.mark.parametrize("form", ["json", "rle"])
@pytest.mark.parametrize("candidates", [None, True])
def test_a_skipped_prompt_is_a_row_with_its_reason(make_service, form, candidates):
    options = {"format": form, "candidates": candidates}
    prompts = [box(10, 10, 60, 50), box(100, 0, 120, 9), box(2, 2, 20, 20)]
    answer = segment(make_service(), PICTURE, prompts, on_bad_prompt="skip", **options)
    first, skipped, last = answer.predictions
    whole = segment(make_service(), PICTURE, [prompts[0], prompts[2]], **options)
    assert [first, last] == whole.predictions
    assert skipped.error.startswith(OUTSIDE)
    assert skipped.confidence == 0
    none = (
        skipped.masks == [] if form == "json" else not rle_to_mask(coco_to_rle(skipped.masks)).any()
    )
    assert none
    [warning] = answer.warnings
    assert warning.startswith(f"1 prompts were skipped and have an empty mask: {OUTSIDE}")


def test_all_prompts_may_be_skipped(make_service):
    prompts, service = [box(100, 0, 120, 9)] * 2, make_service()
    answer = segment(service, PICTURE, prompts, on_bad_prompt="skip")
    assert [row.masks for row in answer.predictions] == [[], []]
    assert answer.unprompted is None
    made = load_npz(segment(service, PICTURE, prompts, on_bad_prompt="skip", format="binary"))
    assert made["masks"].shape == (2, 60, 80)
    assert (made["masks"] < 0).all()
    sure = segment(service, PICTURE, prompts, on_bad_prompt="skip", min_confidence=0.1)
    assert sure.predictions == []
    assert len(sure.warnings) == 1


def test_what_is_probably_not_meant_is_said(make_service):
    large = Image(np.zeros((120, 200, 3), np.uint8), "large")
    answer = segment(make_service(), large, [box(0.1, 0.2, 0.5, 0.9)])
    [hint] = answer.warnings
    assert hint.startswith("every box lies between 0 and 1")
    [hint] = segment(make_service(), PICTURE, [box(-20, -20, 40, 40)]).warnings
    assert hint.startswith("boxes reach outside the 80x60 image and were clipped")
    assert segment(make_service(), PICTURE, [box(1, 2, 40, 40)]).warnings is None


def test_boxes_are_clipped_without_a_warning(make_service):
    outside, inside = (
        segment(make_service(), PICTURE, [edges]).predictions
        for edges in (box(-20, -20, 40, 40), box(0, 0, 40, 40))
    )
    assert outside == inside


def test_a_service_that_drains_takes_nothing_new(make_service):
    service = make_service()
    service.drain()
    with pytest.raises(ShuttingDownError, match="shutting down"), service.admitted():
        pass


@EVERY_WAY
def test_one_name_for_two_pictures_at_once_never_mixes_them_up(make_service):
    service = make_service()
    pictures = [picture(seed) for seed in range(4)]
    own = [segment(service, image, PROMPTS, format="rle") for image in pictures]
    requests = [
        {"image": as_request(pictures[n % 4]), "image_id": "x", "prompts": PROMPTS, "format": "rle"}
        for n in range(24)
    ]
    answers = segment_together(service, requests)
    for number, answer in enumerate(answers):
        if not isinstance(answer, ImageConflictError):
            assert_same_masks(answer, own[number % 4])
    assert sum(isinstance(answer, ImageConflictError) for answer in answers) == 18


@EVERY_WAY
def test_embeddings_are_bounded_in_bytes(nano_executor, make_service):
    size = nano_executor.embed([PICTURE])[0].nbytes
    service = make_service(embedding_bytes=2 * size)
    for seed in range(5):
        embed(service, picture(seed))
    assert service.models.default.cache_stats().nbytes == 2 * size


@EVERY_WAY
def test_an_embedding_on_disk_is_still_known_by_name(make_service, tmp_path):
    service = make_service(embedding_entries=1, embedding_dir=tmp_path)
    embed(service, PICTURE, image_id="cat")
    service.models.default.flush_cache()
    embed(service, picture(1), image_id="dog")
    assert segment(service, None, PROMPTS, image_id="cat").predictions
    assert service.models.default.cache_stats().misses == 2


@EVERY_WAY
def test_a_restarted_service_encodes_no_picture_it_has_on_disk(make_service, tmp_path):
    first = make_service(embedding_dir=tmp_path)
    before = segment(first, PICTURE, PROMPTS, format="rle")
    first.models.default.flush_cache()
    second = make_service(embedding_dir=tmp_path)
    after = segment(second, PICTURE, PROMPTS, format="rle")
    assert [row.masks for row in after.predictions] == [row.masks for row in before.predictions]
    assert second.models.default.cache_stats().misses == 0


@EVERY_WAY
def test_one_cache_serves_the_executor_and_the_service(nano_executor, make_service):
    executor = fresh(nano_executor)
    executor.embed([Image(PICTURE.pixels, "read elsewhere")])
    embed(make_service(executor=executor), PICTURE)
    assert executor.cache_stats().misses == 1


@EVERY_WAY
def test_a_file_in_the_cache_decides_no_size(make_service, tmp_path):
    service = make_service(embedding_entries=1, embedding_dir=tmp_path)
    executor = service.models.default
    embed(service, PICTURE, image_id="a")
    [embedding] = executor.embed([PICTURE])
    executor.flush_cache()
    [file] = tmp_path.iterdir()
    forged = replace(embedding, image_hw=(1, 2**32 - 1))
    file.write_bytes(embedding_to_bytes(forged, read_entry(file).metadata["identity"]))
    for image in (None, PICTURE):
        embed(service, picture(1))  # takes the one place in memory
        answer = segment(service, image, PROMPTS, image_id="a", format="rle")
        assert answer.predictions[0].masks["size"] == [*PICTURE.hw]
