import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sam2_blocks.options import AutomaticSettings
from sam2_blocks.prompts import NO_PROMPT
from sam2_blocks.requests import (
    Box,
    InferenceRequestImage,
    Point,
    Sam2EmbeddingRequest,
    Sam2InferenceRequest,
    Sam2Prompt,
    Sam2PromptSet,
    Sam2SegmentationRequest,
)

NAN, INF = float("nan"), float("inf")
BOX = {"x": 10, "y": 20, "width": 4, "height": 6}
POINT = {"x": 3, "y": 4, "positive": True}
BESIDE = {"x": 5, "y": 6, "positive": False}
IMAGE = {"type": "base64", "value": "aGk="}


def segment(**fields) -> Sam2SegmentationRequest:
    return Sam2SegmentationRequest.model_validate({"image": IMAGE, **fields})


def problems(model, fields) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    return [
        (".".join(map(str, error["loc"])), error["msg"])
        for error in caught.value.errors(include_url=False)
    ]


@pytest.fixture(autouse=True)
def no_version_in_the_environment(monkeypatch):
    monkeypatch.delenv("SAM2_VERSION_ID", raising=False)


# --- what the contract says -------------------------------------------------------------------


def test_the_request_of_a_client_is_read():
    request = segment(
        api_key="key",
        sam2_version_id="hiera_tiny",
        multimask_output=False,
        format="rle",
        prompts={"prompts": [{"box": BOX, "points": [POINT]}]},
        some_later_key=1,
    )
    assert request.model_id == "sam2/hiera_tiny"
    assert request.prompts.prompts == [Sam2Prompt(box=Box(**BOX), points=[Point(**POINT)])]
    assert request.format == "rle"
    assert request.multimask_output is False
    assert not hasattr(request, "some_later_key")


def test_defaults():
    request = segment(id="r1")
    assert request.model_dump() == {
        "id": "r1",
        "api_key": None,
        "usage_billable": True,
        "start": None,
        "source": None,
        "source_info": None,
        "disable_model_monitoring": False,
        "sam2_version_id": "hiera_large",
        "model_id": "sam2/hiera_large",
        "image": IMAGE,
        "image_id": None,
        "format": "json",
        "prompts": {"prompts": None},
        "multimask_output": True,
        "save_logits_to_cache": False,
        "load_logits_from_cache": False,
    }
    assert Sam2EmbeddingRequest(image_id="x").format == "json"
    assert Sam2InferenceRequest().id != Sam2InferenceRequest().id


def test_the_environment_names_the_default_version(monkeypatch):
    monkeypatch.setenv("SAM2_VERSION_ID", "hiera_small")
    assert Sam2InferenceRequest().model_id == "sam2/hiera_small"
    monkeypatch.setenv("SAM2_VERSION_ID", "../etc")
    assert problems(Sam2InferenceRequest, {})[0][0] == "sam2_version_id"


@pytest.mark.parametrize(
    ("fields", "version", "model_id"),
    [
        ({"sam2_version_id": "hiera_b_plus"}, "hiera_b_plus", "sam2/hiera_b_plus"),
        ({"model_id": "sam2/hiera_tiny"}, "hiera_tiny", "sam2/hiera_tiny"),
        ({"sam2_version_id": None}, None, None),
        ({"model_id": "mine/3"}, "hiera_large", "mine/3"),
    ],
)
def test_model_id_and_version_are_made_from_each_other(fields, version, model_id):
    request = Sam2InferenceRequest(**fields)
    assert (request.sam2_version_id, request.model_id) == (version, model_id)
    assert Sam2InferenceRequest(**request.model_dump()) == request


@pytest.mark.parametrize(
    "given",
    [
        {"prompts": [{"box": BOX}]},
        [{"box": BOX}],
        {"box": BOX},
        ({"box": BOX},),
        Sam2Prompt(box=Box(**BOX)),
        [Sam2Prompt(box=Box(**BOX))],
        Sam2PromptSet(prompts=[Sam2Prompt(box=Box(**BOX))]),
    ],
)
def test_prompts_come_in_many_shapes(given):
    assert segment(prompts=given).prompts.to_sam2_inputs()["box"] == [[8, 17, 12, 23]]


@pytest.mark.parametrize("given", [None, {}, [], {"prompts": None}, {"prompts": []}])
def test_no_prompts_come_in_many_shapes(given):
    prompts = segment(prompts=given).prompts
    assert not prompts.prompts
    assert prompts.num_points() == 0
    assert prompts.to_sam2_inputs() == {"point_coords": None, "point_labels": None, "box": None}


def test_the_golden_box():
    prompts = Sam2PromptSet(prompts=[Sam2Prompt(box=Box(x=10, y=20, width=4, height=6))])
    assert prompts.to_sam2_inputs() == {
        "point_coords": None,
        "point_labels": None,
        "box": [[8, 17, 12, 23]],
    }


def test_points_keep_their_rows():
    prompts = Sam2PromptSet(
        prompts=[{"points": [POINT, BESIDE]}, {"box": BOX}, {"box": BOX, "points": [BESIDE]}]
    )
    assert prompts.num_points() == 3
    assert prompts.to_sam2_inputs() == {
        "point_coords": [[[3, 4], [5, 6]], [], [[5, 6]]],
        "point_labels": [[1, 0], [], [0]],
        "box": [[8, 17, 12, 23], [8, 17, 12, 23]],
    }


def test_a_point_can_be_hashed():
    assert Point(**POINT).to_hashable() == (3, 4, True)


def test_the_older_form_of_points_is_read():
    older = {"point_coords": [[3, 4], [5, 6]], "point_labels": [1, 0.0]}
    expected = Sam2PromptSet(prompts=[{"points": [POINT, BESIDE]}])
    assert segment(**older).prompts == expected
    assert segment(prompts=older).prompts == expected
    assert segment(point_coords=[], point_labels=None).prompts == Sam2PromptSet()


def test_no_points_are_no_prompt_as_on_the_public_server():
    for nothing in ({"points": []}, {"box": None, "points": []}, {"points": None}):
        [prompt] = segment(prompts=[nothing]).prompts.to_prompt_set((30, 40)).prompts
        assert prompt is NO_PROMPT


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("promts", "prompts"),
        ("fromat", "format"),
        ("image_ids", "image_id"),
        ("imageId", "image_id"),
    ],
)
def test_a_slip_is_refused_with_the_name_that_was_meant(slip, meant):
    found = dict(problems(Sam2SegmentationRequest, {"image": IMAGE, slip: "rle"}))
    assert f"unknown key '{slip}'. Did you mean '{meant}'?" in found[""]


def test_what_is_nothing_like_a_key_of_ours_is_ignored():
    given = segment(visualize_predictions=True, confidence=0.5, model_type="sam", w=3)
    assert given.format == "json"


# --- what is refused, and where ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "where", "message"),
    [
        ({"rect": [1, 2, 3, 4]}, "prompts.prompts.0", "needs a box or points, got the keys"),
        ({"bbox": [1, 2, 3, 4]}, "prompts.prompts.0", "'bbox'. Did you mean 'box'?"),
        ({"promts": [{"box": BOX}]}, "prompts.prompts.0", "'promts'. Did you mean 'prompts'?"),
        ([{"box": BOX}, {}], "prompts.prompts.1", "needs a box or points"),
        ([{"box": {"x": 1}}], "prompts.prompts.0.box.y", "Field required"),
        ([{"box": [1, 2, 3, 4]}], "prompts.prompts.0.box", "wants an object with"),
        ([{"points": [{"x": 1, "y": 2}]}], "prompts.prompts.0.points.0.positive", "required"),
        ([{"points": POINT}], "prompts.prompts.0.points", "valid list"),
        ([7], "prompts.prompts.0", "wants an object with"),
        ("box", "prompts", "wants an object with"),
        ({"prompts": {"box": BOX}}, "prompts.prompts", "valid list"),
        ({"prompts": [], "box": BOX}, "prompts", r"put ['box'] inside a prompt"),
        ([{"box": {**BOX, "width": 0}}], "prompts.prompts.0.box.width", "greater than 0"),
        ([{"box": {**BOX, "height": -1}}], "prompts.prompts.0.box.height", "greater than 0"),
        ([{"box": {**BOX, "x": NAN}}], "prompts.prompts.0.box.x", "finite"),
        ([{"points": [{**POINT, "y": INF}]}], "prompts.prompts.0.points.0.y", "finite"),
        ({"point_coords": [[1, 2]]}, "prompts.prompts.0", "as many labels"),
        ({"point_labels": [1]}, "prompts.prompts.0", "as many labels"),
        ({"point_coords": [[1, 2]], "point_labels": [2]}, "prompts.prompts.0", "1 or 0"),
        ({"point_coords": [1, 2], "point_labels": [1, 1]}, "prompts.prompts.0", "[[x, y], …]"),
        (
            {"points": [POINT], "point_coords": [[1, 2]], "point_labels": [1]},
            "prompts.prompts.0",
            "give points or point_coords, not both",
        ),
    ],
)
def test_a_prompt_that_cannot_be_understood_is_never_no_prompt(given, where, message):
    found = dict(problems(Sam2SegmentationRequest, {"image": IMAGE, "prompts": given}))
    assert message in found[where]


@pytest.mark.parametrize(
    ("fields", "where", "message"),
    [
        ({"image": None}, "image_id", "give image, or the image_id of an image sent before"),
        ({"image": None, "image_id": ""}, "image_id", "give image, or the image_id"),
        ({"format": "polygon"}, "format", "'json', 'rle' or 'binary'"),
        ({"sam2_version_id": "a/../b"}, "sam2_version_id", "pattern"),
        (
            {"sam2_version_id": "hiera_tiny", "model_id": "sam2/hiera_large"},
            "model_id",
            "'sam2/hiera_large' is not the model of sam2_version_id 'hiera_tiny'",
        ),
        ({"model_version": "2.2"}, "model_version", "'2.0' or '2.1'"),
        ({"model_id": "a" * 257}, "model_id", "at most 256 characters"),
        ({"sam2_version_id": "a" * 65}, "sam2_version_id", "at most 64 characters"),
        ({"image_id": "a" * 513}, "image_id", "at most 512 characters"),
        ({"min_confidence": 1.1}, "min_confidence", "less than or equal to 1"),
        ({"tolerance": -1}, "tolerance", "greater than or equal to 0"),
        ({"tolerance": INF}, "tolerance", "finite"),
        (
            {"prompts": [{"box": BOX}], "point_coords": [[1, 2]], "point_labels": [1]},
            "",
            "give prompts or point_coords, not both",
        ),
        ({"image": "aGk="}, "image", "wants an object with"),
    ],
)
def test_a_wrong_field_is_named(fields, where, message):
    found = dict(problems(Sam2SegmentationRequest, {"image": IMAGE, **fields}))
    assert message in found[where]


@pytest.mark.parametrize(
    ("image", "where", "message"),
    [
        ({"type": "gif", "value": "x"}, "type", "'base64', 'url', 'numpy', 'file'"),
        ({"value": "x"}, "type", "required"),
        ({"type": "base64"}, "value", "an image of type 'base64' needs a value"),
        ({"type": "base64", "value": ""}, "value", "needs a value"),
        ({"type": "base64", "value": 5}, "value", "is a string, not int"),
        ({"type": "url", "value": "file:///etc/passwd"}, "value", "starts with http:// or"),
    ],
)
def test_a_wrong_image_is_refused(image, where, message):
    assert message in dict(problems(InferenceRequestImage, image))[where]


def test_images_in_memory_pass():
    pixels = np.zeros((2, 2, 3), np.uint8)
    assert InferenceRequestImage(type="numpy_object", value=pixels).value is pixels
    assert InferenceRequestImage(type="URL", value="HTTP://x/y.png").type == "url"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "prompts",
                    "box",
                    "points",
                    "x",
                    "y",
                    "width",
                    "height",
                    "positive",
                    "point_coords",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_read_or_refused(given):
    try:
        request = segment(prompts=given)
    except ValidationError:
        return
    prompts = request.prompts.prompts
    assert bool(prompts) == bool(given.get("prompts", given) if isinstance(given, dict) else given)


# --- extensions -------------------------------------------------------------------------------


def test_extensions_are_on_the_wire_only_when_used():
    used = {"min_confidence": 0.5, "model_version": "2.0", "tolerance": 0, "automatic_masks": {}}
    plain, extended = segment(), segment(**used)
    names = used.keys()
    assert not names & json.loads(plain.model_dump_json()).keys()
    assert names <= json.loads(extended.model_dump_json()).keys()
    assert segment(**extended.model_dump()) == extended


def test_automatic_masks_are_asked_for_by_true_or_by_their_settings():
    assert segment(automatic_masks=False).automatic_masks is None
    given = segment(automatic_masks=True, multimask_output=False)
    settings = given.automatic_masks.to_settings(multimask_output=given.multimask_output)
    assert settings == AutomaticSettings(multimask_output=False)
    coarse = segment(automatic_masks={"points_per_side": 8}, prompts={"prompts": []})
    assert coarse.automatic_masks.points_per_side == 8


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        (
            {"automatic_masks": True, "prompts": [{"box": BOX}]},
            "automatic_masks",
            "give prompts or automatic_masks, not both",
        ),
        ({"automatic_masks": {"points": 8}}, "automatic_masks.points", "not permitted"),
        ({"automatic_masks": "yes"}, "automatic_masks", "wants an object with"),
        (
            {"automatic_masks": {"points_per_side": 129}},
            "automatic_masks.points_per_side",
            "less than or equal to 128",
        ),
        (
            {"automatic_masks": {"min_mask_region_area": 10**400}},
            "automatic_masks.min_mask_region_area",
            "less than or equal to 1000000",
        ),
        (
            {"automatic_masks": {"stability_score_offset": NAN}},
            "automatic_masks.stability_score_offset",
            "finite number",
        ),
    ],
)
def test_wrong_automatic_masks_are_errors_with_a_path(fields, path, message):
    [(place, text)] = problems(Sam2SegmentationRequest, {"image": IMAGE, **fields})
    assert place == path
    assert message in text


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_the_schema_describes_the_fields(mode):
    schema = Sam2SegmentationRequest.model_json_schema(mode=mode)
    assert "#/$defs/Sam2PromptSet" in json.dumps(schema["properties"]["prompts"])
    assert set(schema["$defs"]["Box"]["required"]) == {"x", "y", "width", "height"}


# --- our own prompts --------------------------------------------------------------------------


def test_prompts_become_ours():
    prompts = segment(prompts=[{"box": BOX}, {"points": [POINT, BESIDE]}]).prompts
    box, points = prompts.to_prompt_set((30, 40)).prompts
    assert box.box_xyxy is not None
    assert box.box_xyxy.tolist() == [8, 17, 12, 23]
    assert box.point_coords is None
    assert points.box_xyxy is None
    assert points.point_coords is not None
    assert points.point_coords.tolist() == [[3, 4], [5, 6]]
    assert points.point_labels is not None
    assert points.point_labels.tolist() == [1, 0]
    assert len(segment().prompts.to_prompt_set((30, 40))) == 0


def test_prompts_are_checked_against_the_image():
    with pytest.raises(ValueError, match=r"prompt 0: box .* lies wholly outside the 5x5 image"):
        segment(prompts={"box": BOX}).prompts.to_prompt_set((5, 5))
    with pytest.warns(UserWarning, match="clipped"):
        segment(prompts={"box": BOX}).prompts.to_prompt_set((20, 20))
    with pytest.raises(ValueError, match=r"prompt 0: box .* is not finite"):
        segment(prompts={"box": {**BOX, "x": 1e300}}).prompts.to_prompt_set((20, 20))


def test_reading_requests_needs_no_torch():
    code = "import sys, sam2_blocks.requests; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
