from __future__ import annotations

from types import SimpleNamespace

import pytest

from sam2_blocks.hosts.cvat.interaction import create
from tests.hosts.contract import check_host_masks

pytestmark = pytest.mark.usefixtures("sdk")


def prompts(inside=(), beside=(), box=None):
    return SimpleNamespace(pos_points=inside, neg_points=beside, bounding_box=box)


def test_any_prompts_will_do(resources):
    spec = create("fake", resources=resources).spec
    assert (spec.min_pos_points, spec.min_neg_points, spec.min_bounding_boxes) == (0, 0, 0)


def as_cvat_says(prompt):
    """The prompts of CVAT that mean the same."""
    corners = prompt.box_xyxy
    box = None if corners is None else tuple(map(tuple, corners.reshape(2, 2).tolist()))
    coords = (
        [] if prompt.point_coords is None else [tuple(xy) for xy in prompt.point_coords.tolist()]
    )
    labels = [] if prompt.point_labels is None else prompt.point_labels.tolist()
    chosen = {
        wanted: [xy for xy, label in zip(coords, labels, strict=True) if label == wanted]
        for wanted in (0, 1)
    }
    return prompts(chosen[1], chosen[0], box)


@pytest.mark.parametrize("model", ["fake", "nano"])
def test_the_contract_of_all_hosts(frame, resources, model, nano_resources):
    from cvat_sdk.masks import decode_mask

    shared = resources if model == "fake" else nano_resources
    function = create(model, device="cpu", resources=shared)

    def mask_of(image, prompt):
        embedding = function.preprocess_image(None, frame)
        [shape] = function.detect(None, embedding, as_cvat_says(prompt))
        return decode_mask(shape.points, image_width=image.hw[1], image_height=image.hw[0])

    check_host_masks(mask_of, params={"model": model, "device": "cpu"}, resources=shared)


def test_a_mask_has_its_confidence(frame, resources, sdk):
    function = create("fake", resources=resources)
    embedding = function.preprocess_image(None, frame)
    [shape] = function.detect(None, embedding, prompts([(8, 9)]))
    [confidence] = shape.attributes
    assert confidence.spec_id == sdk.InteractionResultAttributes.CONFIDENCE
    assert 0 < float(confidence.value) <= 1


def test_an_empty_mask_is_nothing(frame, resources):
    function = create("fake", resources=resources)
    embedding = function.preprocess_image(None, frame)
    assert function.detect(None, embedding, prompts(box=((3.2, 3.2), (3.4, 3.4)))) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (prompts(), "click on it, or draw a box around it"),
        (prompts(beside=[(3, 4)]), "click on it, or draw a box around it"),
        (prompts([(300, 4)]), r"point 0 at \[300, 4\] is not inside"),
    ],
)
def test_prompts_that_mean_nothing(frame, resources, given, message):
    function = create("fake", resources=resources)
    with pytest.raises(ValueError, match=message):
        function.detect(None, function.preprocess_image(None, frame), given)
