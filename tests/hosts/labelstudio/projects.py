"""Projects of Label Studio, and what it sends about them."""

from __future__ import annotations

from sam2_blocks.testing import sample_image
from tests.service.conftest import to_base64

IMAGE = sample_image()
HEIGHT, WIDTH = IMAGE.hw
ADDRESS = f"data:image/png;base64,{to_base64(IMAGE)}"

SMART = """
  <KeyPointLabels name="click" toName="image" smart="true">{labels}</KeyPointLabels>
  <RectangleLabels name="around" toName="image" smart="true">{labels}</RectangleLabels>
"""
LABELS = '<Label value="cup"/><Label value="Plate" alias="plate" predicted_values="dish, saucer"/>'


def config(control="BrushLabels", labels=LABELS, smart=SMART):
    """A labelling config: smart tools, and a control tag that takes masks."""
    return f"""<View>
  <Image name="image" value="$picture"/>
  {smart.format(labels=labels)}
  <{control} name="mask" toName="image">{labels}</{control}>
</View>"""


PLAIN = """<View>
  <Image name="image" value="$picture"/>
  <Labels name="label" toName="image"><Label value="cup"/><Label value="plate"/></Labels>
  <KeyPoint name="click" toName="image" smart="true"/>
  <Rectangle name="around" toName="image" smart="true"/>
  <Brush name="mask" toName="image"/>
</View>"""

EVERYTHING = """
pipeline_version: 1
inputs: {image: {kind: image}}
steps:
  find: {use: sam2/automatic@v1, with: {image: $inputs.image, points_per_side: 2}}
outputs: {count: $steps.find.predictions, predictions: $steps.find.predictions}
"""
MARKED = """
pipeline_version: 1
inputs:
  image: {kind: image}
  boxes:
    kind: object_detection_prediction
    default:
      - {box_xyxy: [2, 3, 12, 15], class_name: cup, confidence: 0.9}
      - {box_xyxy: [14, 5, 30, 20], class_name: Saucer, confidence: 0.7}
      - {box_xyxy: [14, 5, 30, 20], class_name: dog, confidence: 0.7}
steps:
  cut: {use: sam2/segment@v1, with: {image: $inputs.image, boxes: $inputs.boxes}}
outputs: {predictions: $steps.cut.predictions}
"""


def region(form, value, **changes):
    """A result of ``context``; the value in pixels of the sample."""
    scale = {"x": 100 / WIDTH, "width": 100 / WIDTH, "y": 100 / HEIGHT, "height": 100 / HEIGHT}
    return {
        "id": changes.pop("id", str(value)),
        "from_name": "click" if form.startswith("keypoint") else "around",
        "to_name": "image",
        "type": form,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {name: one * scale.get(name, 1) for name, one in value.items()}
        | changes.pop("said", {}),
        **changes,
    }


def click(x, y, label="cup", *, positive=True, **changes):
    """A click of a smart tool, in pixels of the sample."""
    value = {"x": x, "y": y, "width": 0.3}
    said = {"keypointlabels": [label]}
    return region("keypointlabels", value, is_positive=positive, said=said, **changes)


def rectangle(x0, y0, x1, y1, label="cup", **changes):
    """A rectangle of a smart tool, in pixels of the sample."""
    value = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
    value |= {"rotation": changes.pop("rotation", 0)}
    return region("rectanglelabels", value, said={"rectanglelabels": [label]}, **changes)


def asked(*drawn, label_config=None, tasks=None, **data):
    """The body of ``/predict``, as Label Studio 1.23 sends it."""
    task = {"id": 1, "data": data or {"picture": ADDRESS}, "annotations": [], "predictions": []}
    context = {"result": list(drawn)} if drawn else None
    return {
        "tasks": [task] if tasks is None else tasks,
        "project": "1.1700000000",
        "label_config": label_config or config(),
        "params": {"login": "", "password": "", "context": context},
    }
