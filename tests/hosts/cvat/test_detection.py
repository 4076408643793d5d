from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sam2_blocks import PipelineError, Sam2BlocksError
from sam2_blocks.hosts.cvat.detection import create
from sam2_blocks.testing import run_block, sample_image
from tests.hosts.labelstudio.projects import EVERYTHING, MARKED

pytestmark = pytest.mark.usefixtures("sdk")

BOXES = """
pipeline_version: 1
inputs: {image: {kind: image}, boxes: {kind: object_detection_prediction}}
steps: {keep: {use: detections/filter@v1, with: {detections: $inputs.boxes}}}
outputs: {boxes: $steps.keep.detections}
"""


def asked(threshold=None, *, polygons=False):
    return SimpleNamespace(frame_name="a.png", conf_threshold=threshold, conv_mask_to_poly=polygons)


@pytest.fixture
def detection(tmp_path, resources):
    """``detection(document, labels=…)``: the function of a pipeline."""

    def make(document=MARKED, **given):
        (tmp_path / "found.yaml").write_text(document)
        return create(str(tmp_path / "found.yaml"), resources=resources, **given)

    return make


def test_classes_are_the_labels_that_were_given(detection):
    function = detection(labels="Saucer, cup")
    assert [(one.name, one.id) for one in function.spec.labels] == [("Saucer", 0), ("cup", 1)]


def test_objects_are_masks_with_their_label(detection, frame, resources):
    from cvat_sdk.masks import decode_mask

    shapes = detection(labels="saucer,cup").detect(asked(), frame)
    assert [(str(one.type), one.label_id, one.frame) for one in shapes] == [
        ("mask", 1, 0),
        ("mask", 0, 0),
    ]
    boxes = {"image": sample_image(), "boxes": [[2, 3, 12, 15], [14, 5, 30, 20]]}
    wanted = run_block("sam2/segment@v1", boxes, resources=resources, model="fake")
    for shape, mask in zip(shapes, wanted.outputs["predictions"].mask, strict=True):
        decoded = decode_mask(shape.points, image_width=32, image_height=24)
        assert np.array_equal(decoded, mask)


def test_masks_are_polygons_where_cvat_wants_them(detection, frame):
    shapes = detection(labels="cup").detect(asked(polygons=True), frame)
    assert [str(one.type) for one in shapes] == ["polygon"]
    assert np.array(shapes[0].points).reshape(-1, 2).max(axis=0).tolist() == [12, 15]


def test_objects_without_masks_are_rectangles(detection, frame):
    [shape] = detection(BOXES, boxes=[[2, 3, 12, 15]]).detect(asked(), frame)
    assert (str(shape.type), list(shape.points)) == ("rectangle", [2, 3, 12, 15])


def test_objects_that_are_less_sure_are_left_out(detection, frame):
    rows = [
        {"box_xyxy": [2, 3, 12, 15], "confidence": 0.4},
        {"box_xyxy": [2, 3, 12, 15], "confidence": 0.9},
    ]
    function = detection(BOXES, boxes=rows)
    assert [len(function.detect(asked(least), frame)) for least in (None, 0.4, 0.5, 1)] == [
        2,
        2,
        1,
        0,
    ]


def test_objects_without_a_class_have_the_only_label(detection, frame):
    assert len(detection(EVERYTHING).detect(asked(), frame)) > 0
    assert detection(EVERYTHING, labels="cup,plate").detect(asked(), frame) == []


def test_the_driver_of_cvat_takes_what_comes(detection, frame, sdk):
    """What ``cvat-cli task auto-annotate`` does with it, but for the server."""
    import logging

    from cvat_sdk import models
    from cvat_sdk.auto_annotation.driver import _AnnotationMapper, _SpecNameMapping

    function = detection(labels="saucer,cup")
    for polygons in (False, True):
        kind = "polygon" if polygons else "mask"
        theirs = [
            models.Label(id=10 + index, name=name, type=kind, attributes=[], sublabels=[])
            for index, name in enumerate(["cup", "saucer"])
        ]
        mapper = _AnnotationMapper(
            logging.getLogger(),
            function.spec.labels,
            theirs,
            allow_unmatched_labels=False,
            spec_nm=_SpecNameMapping(),
            conv_mask_to_poly=polygons,
        )
        found = function.detect(asked(polygons=polygons), frame)
        _, shapes = mapper.validate_and_remap(found, 5)
        assert [(one.label_id, one.frame) for one in shapes] == [(10, 5), (11, 5)]


def test_a_step_that_fails_is_named(detection, frame):
    document = MARKED.replace(
        "boxes: $inputs.boxes}", "boxes: $inputs.boxes, on_bad_prompt: error}"
    )
    function = detection(document, labels="cup", boxes=[[500, 500, 600, 600]])
    with pytest.raises(Sam2BlocksError, match="outside"):
        function.detect(asked(), frame)


@pytest.mark.parametrize(
    ("document", "given", "error", "message"),
    [
        (
            MARKED.replace(
                "outputs:",
                "  out: {use: export/coco@v1, with: {image: $inputs.image, "
                "predictions: $steps.cut.predictions}}\noutputs:",
            ),
            {},
            PipelineError,
            "export/coco@v1 writes files, which a function of CVAT has no place for",
        ),
        (BOXES, {}, Sam2BlocksError, r"lacks \['boxes'\]"),
        (MARKED, {"modle": "nano"}, Sam2BlocksError, r"has no input 'modle'; it has \['image'"),
        (MARKED, {"labels": " , "}, Sam2BlocksError, "labels: give names of classes"),
    ],
)
def test_what_only_a_frame_would_show_is_refused_before(detection, document, given, error, message):
    with pytest.raises(error, match=message):
        detection(document, **given)
