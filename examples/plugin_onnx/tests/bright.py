"""A detector made in code: it finds the box around all that is white, in every layout there is."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

JITTER = np.array([0, 0.4, -0.4, 0.2, -0.2, 0.3, -0.3, 0.1, -0.1, 0.5, -0.5, 0.0], np.float32)
QUERIES = len(JITTER)  # each says the same box, a little moved, and is a little less certain
CERTAINTY = np.linspace(0.9, 0.6, QUERIES).astype(np.float32)


class Graph:
    """Writes down nodes one after another."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def __call__(self, operator, *inputs, **attributes):
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [name], **attributes))
        return name

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _whites(graph, pictures, half):
    """Corners of what is white, (B, 4), and whether there is any, (B, 1)."""
    if half:
        pictures = graph("Cast", pictures, to=TensorProto.FLOAT)
    white = graph("ReduceMin", pictures, np.array([1]), keepdims=0)
    white = graph("Cast", graph("Greater", white, np.float32(0.9)), to=TensorProto.FLOAT)
    ends = []
    for across in (1, 2):  # max over rows leaves columns, x
        line = graph("ReduceMax", white, np.array([across]), keepdims=0)
        low = graph("ArgMax", line, axis=1, keepdims=1)
        high = graph("ArgMax", line, axis=1, keepdims=1, select_last_index=1)
        ends.append([low, graph("Add", high, np.array(1))])
    (x0, x1), (y0, y1) = ends
    corners = graph("Cast", graph("Concat", x0, y0, x1, y1, axis=1), to=TensorProto.FLOAT)
    any_white = graph("ReduceMax", white, np.array([1, 2]), keepdims=0)
    return corners, graph("Unsqueeze", any_white, np.array([1]))


def _queries(graph, corners):
    """Boxes a little moved, (B, Q, 4)."""
    return graph("Add", graph("Unsqueeze", corners, np.array([1])), JITTER[None, :, None])


def _centres(graph, boxes):
    """Corners to centre and size, (B, Q, 4)."""
    low = graph("Slice", boxes, np.array([0]), np.array([2]), np.array([2]))
    high = graph("Slice", boxes, np.array([2]), np.array([4]), np.array([2]))
    centre = graph("Mul", graph("Add", low, high), np.float32(0.5))
    return graph("Concat", centre, graph("Sub", high, low), axis=2)


def _scores(graph, any_white, class_count, class_id):
    """Scores of classes, (B, Q, C): of one class, if anything is white."""
    scores = np.full((1, QUERIES, class_count), 0.01, np.float32)
    scores[0, :, class_id] = CERTAINTY
    return graph("Mul", graph("Unsqueeze", any_white, np.array([1])), scores)


def _logits(graph, any_white, class_count, class_id):
    """Logits, (B, Q, C): high for one class, or for none; its certainty through a sigmoid."""
    logits = np.full((1, QUERIES, class_count), -9, np.float32)
    logits[0, :, class_id] = np.log(CERTAINTY / (1 - CERTAINTY))
    dark = graph("Sub", np.float32(1), graph("Unsqueeze", any_white, np.array([1])))
    return graph("Sub", logits, graph("Mul", dark, np.float32(20)))


def _of_layout(graph, layout, corners, any_white, side, class_count, class_id):
    boxes = _queries(graph, corners)
    scores = _scores(graph, any_white, class_count, class_id)
    if layout == "yolov8":
        rows = graph("Concat", _centres(graph, boxes), scores, axis=2)
        return {"output0": graph("Transpose", rows, perm=[0, 2, 1])}
    if layout == "yolov5":
        certain = graph(
            "Max",
            graph("Slice", scores, np.array([0]), np.array([1]), np.array([2])),
            np.float32(1),
        )
        return {"output0": graph("Concat", _centres(graph, boxes), certain, scores, axis=2)}
    if layout == "nms":
        best = graph("ReduceMax", scores, np.array([2]), keepdims=1)
        number = graph("Add", graph("Mul", best, np.float32(0)), np.float32(class_id))
        return {"output0": graph("Concat", boxes, best, number, axis=2)}
    if layout == "boxes":
        best = graph("ReduceMax", scores, np.array([2]), keepdims=0)
        number = graph("Add", graph("Mul", best, np.float32(0)), np.float32(class_id))
        labels = graph("Cast", number, to=TensorProto.INT64)
        return {"labels": labels, "boxes": boxes, "scores": best}
    relative = graph("Div", _centres(graph, boxes), np.float32(side))
    if layout == "detr in one":
        return {"output0": graph("Concat", relative, scores, axis=2)}
    return {"pred_boxes": relative, "logits": _logits(graph, any_white, class_count, class_id)}


def save(
    path,
    layout,
    *,
    side=96,
    batch="batch",
    class_count=3,
    class_id=1,
    half=False,
    shape=None,
    sizes=False,
    metadata=None,
):
    """Write a model that finds white boxes; the rest says what is special about it."""
    graph = Graph()
    corners, any_white = _whites(graph, "images", half)
    made = _of_layout(graph, layout, corners, any_white, side, class_count, class_id)
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("images", kind, shape or [batch, 3, side, side])]
    if sizes:
        inputs.append(
            helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [batch, 2])
        )
    outputs = []
    for name, made_as in made.items():
        graph.nodes.append(helper.make_node("Identity", [made_as], [name]))
        number = TensorProto.INT64 if name == "labels" else TensorProto.FLOAT
        any_shape = [None] * (2 if name in ("labels", "scores") else 3)
        outputs.append(helper.make_tensor_value_info(name, number, any_shape))
    model = helper.make_model(
        helper.make_graph(graph.nodes, "bright", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    helper.set_model_props(model, {key: str(value) for key, value in (metadata or {}).items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
