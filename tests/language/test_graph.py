"""A pipeline as text and as a picture."""

from __future__ import annotations

import xml.etree.ElementTree as Xml
from dataclasses import replace

import pytest

from sam2_blocks import load_pipeline
from sam2_blocks.language.documents import parse_yaml
from sam2_blocks.language.graph import explain, mermaid, svg

PIPELINE = """\
pipeline_version: 1
inputs:
  image: {kind: image}
  boxes: {kind: object_detection_prediction}
steps:
  crops:
    when: {value: $inputs.boxes, is: not_empty}
    use: image/crop@v1
    with: {image: $inputs.image, detections: $inputs.boxes}
  closer: {for_each: $steps.crops.crops, use: sam2/automatic@v1, with: {image: $each}}
  draw:
    when: {value: $inputs.boxes, is: at_least, to: 2}
    use: image/rotate@v1
    with: {image: $inputs.image}
outputs:
  masks: {value: $steps.closer.predictions, default: empty}
  picture: $steps.draw.image
"""


@pytest.fixture
def pipeline(plugins):
    return load_pipeline(parse_yaml(PIPELINE).data, plugins.manifests, plugins.kinds)


def test_every_wire_is_explained(pipeline):
    lines = list(explain(pipeline))
    assert "crops: image/crop@v1 when $inputs.boxes is not_empty" in lines
    assert "closer: sam2/automatic@v1 for each of $steps.crops.crops" in lines
    assert "  image ← $inputs.image: image" in lines
    assert "  image ← $each of $steps.crops.crops: image" in lines
    assert "  → crops: list of image" in lines
    assert lines[-2].startswith("output masks ← $steps.closer.predictions or its default: list of")
    assert lines[-1] == "output picture ← $steps.draw.image: image, absent where skipped"


def test_it_is_drawn_as_mermaid(pipeline):
    lines = mermaid(pipeline).splitlines()
    assert lines[0] == "flowchart LR"
    text = '["draw<br>image/rotate@v1<br>when $inputs.boxes is at_least 2"]'
    [draw] = [line.strip().removesuffix(text) for line in lines if line.endswith(text)]
    assert f"  n0 --> {draw}" in lines
    assert f"  n1 -.-> {draw}" in lines


def test_it_is_drawn_as_svg_that_needs_no_network(pipeline):
    text = svg(pipeline)
    root = Xml.fromstring(text)
    assert len(root.findall("{*}g")) == 2 + 3 + 2
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    boxes = [node.find("{*}rect").attrib for node in root.findall("{*}g")]
    assert len({(box["x"], box["y"]) for box in boxes}) == 7


def test_what_is_drawn_is_no_markup(pipeline):
    assert "<script>" not in svg(replace(pipeline, title="<script>x</script>"))
    name = 'a"]<b>'
    strange = replace(pipeline.steps[0], id=name)
    text = mermaid(replace(pipeline, steps=(strange,), outputs={}))
    assert name not in text
    assert "a#34;#93;#60;b#62;" in text
