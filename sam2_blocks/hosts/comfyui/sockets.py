"""Kinds and parameters as ComfyUI's types and widgets.

A type there is a name; one with commas is any of several. A widget is a type with a default.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from sam2_blocks.kinds import ANY, LIST_OF, element_kind
from sam2_blocks.language.manifest import Input, Manifest, Output, Param

HOST = "comfyui"

BOXES = "object_detection_prediction"
MASKS = ("rle_instance_segmentation_prediction", "instance_segmentation_prediction")
DETECTIONS = (BOXES, *MASKS, "keypoint_detection_prediction")
AS_JSON = ("prompts", "list_of_values", "dictionary")
"""Kinds that are written as text."""

PLAIN = ("string", "integer", "float", "boolean", *AS_JSON, ANY)
"""Kinds whose values are plain data."""

TYPES: Mapping[str, str] = {
    "image": "IMAGE",
    "image_embedding": "SAM2_BLOCKS_EMBEDDING",
    BOXES: "SAM2_BLOCKS_DETECTIONS",
    **dict.fromkeys(MASKS, "SAM2_BLOCKS_PREDICTIONS"),
    "keypoint_detection_prediction": "SAM2_BLOCKS_KEYPOINTS",
    **dict.fromkeys(("string", *AS_JSON), "STRING"),
    "integer": "INT",
    "float": "FLOAT",
    "boolean": "BOOLEAN",
    ANY: "*",
}
"""Types by kind; any other kind travels as ``SAM2_BLOCKS_`` and its name."""

ALSO_ACCEPTED: Mapping[str, tuple[str, ...]] = {
    BOXES: ("BBOX", "BOUNDING_BOX", "JSON", "SEGS"),  # KJNodes, ComfyUI, Florence2, Impact Pack
    **dict.fromkeys(MASKS, ("MASK",)),
}

HOST_FIELDS = ("individual_masks", "box_format", "positive_coords", "negative_coords", "unique_id")
"""Fields of a node that are no input or parameter of its block; named as in ComfyUI's own nodes."""

LARGEST = 2**53
"""Bound of numbers without one; ComfyUI would take 2048, and JavaScript counts no further."""

Field = tuple[Any, dict[str, Any]]


class Slot(NamedTuple):
    """One output of a node.

    Attributes:
        type: ComfyUI's type.
        name: shown beside it.
        tooltip: shown over it.
        output: the block's output it is made from.
        form: how it is made: our values as they are, or pictures, masks and boxes for the nodes of
            others, the masks of each object through a clip, or one plain value a picture.
    """

    type: str
    name: str
    tooltip: str
    output: str
    form: Literal["own", "image", "masks", "tracks", "boxes", "plain"]

    @property
    def is_list(self) -> bool:
        """Whether it is a list, each value of which ComfyUI hands on by itself."""
        return self.form in ("plain", "tracks")


def node_name(block_id: str) -> str:
    """The name of a block in ComfyUI's workflows."""
    path, _, version = block_id.partition("@")
    return f"sam2_blocks_{path.removeprefix('sam2/').replace('/', '_')}_{version}"


def input_types(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Make what a node's ``INPUT_TYPES`` returns."""
    fields: dict[str, dict[str, Field]] = {"required": {}, "optional": {}}
    for name, socket in manifest.inputs.items():
        fields["required" if socket.required else "optional"][name] = _input_field(socket)
    fields["optional"] |= _host_fields(manifest)
    defaults = manifest.for_host(HOST).defaults
    for name, param in manifest.params.items():
        field = _param_field(name, param, defaults.get(name, param.default))
        fields["required" if param.required else "optional"][name] = field
    fields["optional"] |= {other_name(name): _other_field(name) for name in listed_params(manifest)}
    return {**fields, "hidden": {"unique_id": "UNIQUE_ID"}}


def listed_params(manifest: Manifest) -> list[str]:
    """Parameters with a drop-down of known names that takes no free text itself."""
    defaults = manifest.for_host(HOST).defaults
    return [
        name
        for name, param in manifest.params.items()
        if param.suggestions
        and defaults.get(name, param.default) is not ...
        and other_name(name) not in manifest.names
    ]


def other_name(name: str) -> str:
    """The field for a value that a drop-down does not list."""
    return f"other_{name}"


def _other_field(name: str) -> Field:
    text = f"Used instead of {name}, if there is something in it."
    return "STRING", {"default": "", "tooltip": text}


def output_slots(manifest: Manifest) -> list[Slot]:
    """List the outputs of a node: those of the block, then what others can use of them."""
    own = [_own_slot(name, socket) for name, socket in manifest.outputs.items()]
    return [*own, *_converted_slots(manifest)]


def accepts(socket: Input, kinds: Iterable[str]) -> bool:
    """Whether an input takes one of these kinds."""
    return bool(set(socket.kinds) & set(kinds))


def is_json(socket: Input) -> bool:
    """Whether an input is a text that holds JSON."""
    return all(map(_is_text, socket.kinds))


def _own_slot(name: str, socket: Output) -> Slot:
    if "image" in socket.kinds:
        return Slot(_type_of(socket), name, socket.description, name, "image")
    plain = all(kind in PLAIN or _is_text(kind) for kind in socket.kinds)
    return Slot(_type_of(socket), name, socket.description, name, "plain" if plain else "own")


def _converted_slots(manifest: Manifest) -> Iterator[Slot]:
    outputs = list(manifest.outputs.items())
    for name, socket in outputs[:1] if takes_clips(manifest) else outputs:
        if set(MASKS) & set(socket.kinds):
            yield _mask_slot(name, manifest)
        if set(DETECTIONS) & set(socket.kinds):
            text = f"The boxes of {name}, [x0, y0, x1, y1] in pixels; lists of them for a batch."
            yield Slot("BBOX", "boxes", text, name, "boxes")


def _mask_slot(name: str, manifest: Manifest) -> Slot:
    if not takes_clips(manifest):
        text = f"The masks of {name}: of each object, or of each picture (individual_masks)."
        return Slot("MASK", "masks", text, name, "masks")
    text = (
        f"The masks of {name}, one a frame: a list of one batch an object, by tracker_id, or one "
        "batch of all objects (individual_masks)."
    )
    return Slot("MASK", "masks", text, name, "tracks")


def takes_clips(manifest: Manifest) -> bool:
    """Whether a batch of pictures is a clip to this block, its frames in order."""
    return manifest.for_host(HOST).extra.get("batch") == "clip"


def _type_of(socket: Input | Output) -> str:
    return ",".join(dict.fromkeys(map(_type_named, socket.kinds)))


def _type_named(kind: str) -> str:
    if _is_text(kind):
        return "STRING"
    return TYPES.get(kind, f"SAM2_BLOCKS_{kind.replace(' ', '_').upper()}")


def _is_text(kind: str) -> bool:
    """Whether values of a kind are written as JSON: lists of plain values are."""
    return kind in AS_JSON or (kind.startswith(LIST_OF) and element_kind(kind) in PLAIN)


def _input_field(socket: Input) -> Field:
    options: dict[str, Any] = {"tooltip": socket.description}
    if is_json(socket):
        return "STRING", {"default": "", "multiline": True, "tooltip": _json_tooltip(socket)}
    accepted = (name for kind in socket.kinds for name in ALSO_ACCEPTED.get(kind, ()))
    types = ",".join(dict.fromkeys((*_type_of(socket).split(","), *accepted)))
    return types, {**options, "forceInput": True}


def _json_tooltip(socket: Input) -> str:
    example = ""
    if "prompts" in socket.kinds:
        example = ' such as [{"box_xyxy": [x0, y0, x1, y1]}, {"point_coords": [[x, y]]}]'
    return f"{socket.description} JSON{example}; empty is not given."


def _host_fields(manifest: Manifest) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    inputs = manifest.inputs.values()
    if any(accepts(socket, ["prompts"]) for socket in inputs):
        for sign, meaning in (("positive", "inside"), ("negative", "outside")):
            text = f'Clicks {meaning} one more object, JSON: [{{"x": 12, "y": 9}}], pixels.'
            fields[f"{sign}_coords"] = ("STRING", {"forceInput": True, "tooltip": text})
    if any(accepts(socket, [BOXES]) for socket in inputs):
        text = (
            "What a BBOX of four bare numbers means. SAM 2 and Florence 2 nodes give xyxy, the "
            "croppers of KJNodes xywh."
        )
        fields["box_format"] = (["xyxy", "xywh"], {"default": "xyxy", "tooltip": text})
    if any(slot.form in ("masks", "tracks") for slot in _converted_slots(manifest)):
        text = (
            "One mask an object; off: one mask a picture, of all objects, which takes less memory."
        )
        fields["individual_masks"] = ("BOOLEAN", {"default": True, "tooltip": text})
    return fields


def _param_field(name: str, param: Param, default: Any) -> Field:
    options: dict[str, Any] = {"tooltip": param.json_schema["description"]}
    if default is not ... and default is not None:
        options["default"] = default
    if param.enum:
        return [*([""] if default is None else []), *param.enum], options
    if param.type in ("array", "object"):
        text = json.dumps(options["default"], ensure_ascii=False) if "default" in options else ""
        tooltip = f"{options['tooltip']} JSON; empty is not given."
        return "STRING", {"default": text, "multiline": True, "tooltip": tooltip}
    if param.suggestions and default is not ...:
        listed = dict.fromkeys(("" if default is None else str(default), *param.suggestions))
        options["tooltip"] += f" A name that is not listed goes into {other_name(name)}."
        return list(listed), options
    if param.type == "string":
        return "STRING", {"default": "", **options}
    if default is None:  # a widget always has a value; a socket may stay free
        options["forceInput"] = True
    if param.type == "boolean":
        return "BOOLEAN", options
    return _number_field(param, options)


def _number_field(param: Param, options: dict[str, Any]) -> Field:
    lowest, highest = _first(param.minimum, -LARGEST), _first(param.maximum, LARGEST)
    if param.type == "integer":
        above = _first(param.exclusiveMinimum, -LARGEST) + 1
        below = _first(param.exclusiveMaximum, LARGEST) - 1
        return "INT", {**options, "min": int(max(lowest, above)), "max": int(min(highest, below))}
    bounds = {  # a widget may show an exclusive bound itself; the block's check refuses it
        "min": max(lowest, _first(param.exclusiveMinimum, -LARGEST)),
        "max": min(highest, _first(param.exclusiveMaximum, LARGEST)),
    }
    return "FLOAT", {**options, **bounds, "step": 0.01, "round": False}


def _first(bound: float | None, otherwise: float) -> float:
    return otherwise if bound is None else bound
