"""Values on ComfyUI's wires, in and out.

An IMAGE is a batch: float32 (B, H, W, 3) in 0..1. A block sees one picture at a time, so every
value is taken apart into one a picture, and put together again afterwards. Values of our own kinds
travel as a `Batch`. A MASK is float32 (N, H, W): masks of objects or of pictures, of all pictures
one after another. To blocks that follow objects an IMAGE is a clip, whose frames come in order: a
MASK is of the objects on its first frame, and each object gives a MASK of its own, one a frame.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_blocks.formats.images import array_to_image
from sam2_blocks.hosts.comfyui.boxes import boxes_to_rows
from sam2_blocks.hosts.comfyui.sockets import BOXES, MASKS, Slot, accepts, is_json, takes_clips
from sam2_blocks.language.manifest import Input, Manifest
from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.values import Embedding, Hw, Image, VideoFrame

if TYPE_CHECKING:
    import supervision as sv
    from numpy.typing import NDArray
    from torch import Tensor

CLIP = "clip"
"""Name of every clip: a node is about one at a time."""

UNKNOWN_HW = (64, 64)
"""Size of no mask on no known picture; ComfyUI's LoadImage makes an empty mask of this size."""


class Batch(tuple[Any, ...]):
    """Values of one of our kinds, one a picture."""


def inputs_to_rows(given: Mapping[str, Any], manifest: Manifest) -> list[dict[str, Any]]:
    """Take the fields of a node apart into one row of values a picture.

    Args:
        given: what ComfyUI hands over, by field; None and blank text are not given.
        manifest: the node's block.

    Raises:
        ValueError: if a value has no such form, or fields are of different numbers of pictures;
            the message begins with the field.
    """
    given = {name: value for name, value in given.items() if not _is_blank(value, name, manifest)}
    parts = {
        name: _named(name, _split, given[name], socket, given)
        for name, socket in manifest.inputs.items()
        if name in given
    }
    _fit_masks(parts)
    count = max((len(part) for part in parts.values() if isinstance(part, Batch)), default=1)
    spread = _spread_on_clip if takes_clips(manifest) else _spread
    for name, part in parts.items():
        parts[name] = _named(name, spread, part, count)
    params = {
        name: _named(name, _parse_json, given[name])
        if param.type in ("array", "object")
        else given[name]
        for name, param in manifest.params.items()
        if name in given
    }
    _add_clicks(parts, given, manifest, count)
    return [
        {**params, **{name: part[index] for name, part in parts.items()}} for index in range(count)
    ]


def outputs_to_values(
    outputs: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    slots: Iterable[Slot],
    *,
    individual_masks: bool,
    dump: Callable[[str, Any], Any],
) -> tuple[Any, ...]:
    """Put what a block made of each picture together as a node's outputs.

    Args:
        outputs: by picture, then by name.
        rows: what the block was given, by picture.
        slots: the outputs of the node.
        individual_masks: one mask an object, else one a picture.
        dump: makes plain data of the value of an output, by its kind.

    Raises:
        TypeError: if a value cannot be plain data.
        ValueError: if pictures or masks of different sizes would be in one batch.
    """
    values: list[Any] = []
    for slot in slots:
        made = [row[slot.output] for row in outputs]
        if slot.form == "image":
            values.append(images_to_tensor(made))
        elif slot.form == "masks":
            pairs = zip(made, rows, strict=True)
            masks = [_masks_of(found, row, individual=individual_masks) for found, row in pairs]
            values.append(_one_at_least(_cat(masks, "masks")))
        elif slot.form == "tracks":
            values.append(_tracks_of(made, rows, individual=individual_masks))
        elif slot.form == "boxes":
            boxes = [detections.xyxy.tolist() for detections in made]
            values.append(boxes[0] if len(boxes) == 1 else boxes)
        else:
            plain = slot.form == "plain"
            values.append([_text_of(dump(slot.output, v)) for v in made] if plain else Batch(made))
    return tuple(values)


def tensor_to_images(pixels: Tensor) -> list[Image]:
    """Make pictures of an IMAGE.

    Args:
        pixels: float, (B, H, W, C) in 0..1; of more than three channels the first three are used.

    Returns:
        B pictures; those that were read from files with 8 bits have the same pixels again.

    Raises:
        ValueError: if it is no IMAGE.
    """
    if pixels.ndim != 4 or pixels.shape[0] == 0 or pixels.shape[3] < 3:
        raise ValueError(f"wants an IMAGE (B, H, W, 3) with B >= 1, got {tuple(pixels.shape)}")
    scaled = pixels[..., :3].float().nan_to_num(0).mul(255).round().clamp(0, 255)
    arrays = scaled.byte().contiguous().cpu().numpy()
    return [array_to_image(array, f"image_{index}") for index, array in enumerate(arrays)]


def images_to_tensor(images: Sequence[Image]) -> Tensor:
    """Make an IMAGE, float32 (B, H, W, 3) in 0..1, of B pictures of one size."""
    import torch

    pixels = [torch.tensor(image.pixels[None], dtype=torch.float32) for image in images]
    return _cat(pixels, "image").div_(255)


def tensor_to_masks(masks: Tensor) -> NDArray[np.bool_]:
    """Make boolean masks of ComfyUI's MASK.

    Args:
        masks: float, (N, H, W) or (H, W); what is above 0.5 is inside.

    Returns:
        bool, (N, H, W).

    Raises:
        ValueError: if it has another number of axes.
    """
    if masks.ndim not in (2, 3):
        raise ValueError(f"wants a MASK (N, H, W), got {tuple(masks.shape)}")
    inside: NDArray[np.bool_] = (masks > 0.5).reshape(-1, *masks.shape[-2:]).cpu().numpy()
    return inside


def _is_blank(value: Any, name: str, manifest: Manifest) -> bool:
    """Whether a field is not given; an empty text is, where a parameter has another default."""
    param = manifest.params.get(name)
    if param is not None and param.type == "string" and param.default is not None:
        return value is None
    return value is None or (isinstance(value, str) and not value.strip())


def _named(name: str, convert: Callable[..., Any], *given: Any) -> Any:
    """Convert a field; if that fails, say which field it was."""
    try:
        return convert(*given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name!r}: {error}") from error


def _split(value: Any, socket: Input, given: Mapping[str, Any]) -> Any:
    """One value a picture; bool masks, whose pictures are not known yet; or one value for all."""
    import torch

    if isinstance(value, Batch):
        return value
    if isinstance(value, torch.Tensor) and accepts(socket, ["image"]):
        return Batch(tensor_to_images(value))
    boxes = accepts(socket, [BOXES]) and _has_rows_of_four(value)
    if isinstance(value, torch.Tensor) and accepts(socket, MASKS) and not boxes:
        return tensor_to_masks(value)
    if accepts(socket, [BOXES]):
        return Batch(boxes_to_rows(value, box_format=given.get("box_format", "xyxy")))
    return [_parse_json(value) if is_json(socket) else value]


def _has_rows_of_four(value: Any) -> bool:
    """Whether a tensor has the shape of boxes; a mask of four columns is none that anybody has."""
    shape = tuple(getattr(value, "shape", ()))
    return len(shape) in (2, 3) and shape[-1] == 4


def _fit_masks(parts: dict[str, Any]) -> None:
    """Scale masks to their pictures, as ComfyUI's own nodes do; it makes them of any size."""
    sizes = {
        value.hw
        for part in parts.values()
        if isinstance(part, Batch)
        for value in part
        if isinstance(value, Image)
    }
    if len(sizes) != 1:
        return
    [hw] = sizes
    for name, part in parts.items():
        if isinstance(part, np.ndarray) and part.shape[1:] != hw and part.size:
            parts[name] = _scaled(part, hw)


def _scaled(masks: NDArray[np.bool_], hw: Hw) -> NDArray[np.bool_]:
    """Take the nearest pixel, (N, h, w) to (N, H, W)."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(hw, masks.shape[1:], strict=True)
    )
    return masks[:, rows[:, None], columns[None, :]]


def _spread(part: Any, count: int) -> Sequence[Any]:
    """One value for each of ``count`` pictures."""
    if isinstance(part, np.ndarray):
        if len(part) == count > 1:
            return [_masks_to_detections(mask[None]) for mask in part]
        if count > 1 and len(part) != 1:
            raise ValueError(f"has {len(part)} masks for {count} pictures; wants one each")
        return [_masks_to_detections(part)] * count
    if len(part) not in (1, count):
        raise ValueError(f"is of {len(part)} pictures, another input of {count}")
    return list(part) * (count if len(part) == 1 else 1)


def _spread_on_clip(part: Any, count: int) -> Sequence[Any]:
    """One value for each frame of a clip: frames know their number, and masks are of the first."""
    if isinstance(part, np.ndarray):
        rest = _masks_to_detections(part[:0])
        return [_masks_to_detections(part), *[rest] * (count - 1)]
    return [
        replace(value, video=VideoFrame(CLIP, index)) if isinstance(value, Image) else value
        for index, value in enumerate(_spread(part, count))
    ]


def _masks_to_detections(masks: NDArray[np.bool_]) -> sv.Detections:
    from sam2_blocks.masks.detections import to_detections
    from sam2_blocks.masks.rle import masks_to_prediction

    return to_detections(masks_to_prediction(masks))


def _add_clicks(
    parts: dict[str, Any], given: Mapping[str, Any], manifest: Manifest, count: int
) -> None:
    """Add the object that ``positive_coords`` and ``negative_coords`` click on."""
    points: list[list[float]] = []
    labels: list[int] = []
    for name, label in (("positive_coords", 1), ("negative_coords", 0)):
        clicked = _named(name, _parse_points, given.get(name) or "[]")
        points += clicked
        labels += [label] * len(clicked)
    if points:
        name = next(n for n, socket in manifest.inputs.items() if accepts(socket, ["prompts"]))
        clicks = {"point_coords": points, "point_labels": labels}
        parts[name] = [[*rows, clicks] for rows in parts.get(name, [[]] * count)]


def _parse_json(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"wants JSON, got {text!r:.80} ({error})") from error


def _parse_points(text: str) -> list[list[float]]:
    rows = _parse_json(text.replace("'", '"'))  # what Python prints is taken too, as elsewhere
    try:
        return [[float(row["x"]), float(row["y"])] for row in rows]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f'wants points [{{"x": 12, "y": 9}}, …], got {text!r:.80}') from error


def _text_of(value: Any) -> Any:
    """Plain values as they are, anything with parts as JSON."""
    from pydantic_core import to_json

    if isinstance(value, list | dict):
        return to_json(value, inf_nan_mode="null").decode()
    return value


def _masks_of(detections: sv.Detections, row: Mapping[str, Any], *, individual: bool) -> Tensor:
    """The masks of one picture: (N, H, W), or (1, H, W) where any object is."""
    import torch

    masks = torch.zeros((len(detections) if individual else 1, *_hw_of(detections, row)))
    for index, inside in enumerate(_iter_masks(detections)):
        masks[index if individual else 0].masked_fill_(torch.from_numpy(inside), 1)
    return masks


def _tracks_of(
    frames: Sequence[sv.Detections], rows: Sequence[Mapping[str, Any]], *, individual: bool
) -> list[Tensor]:
    """The masks of each object, (B, H, W), by its id; or those of any object."""
    import torch

    if not individual:
        pairs = zip(frames, rows, strict=True)
        return [_cat([_masks_of(found, row, individual=False) for found, row in pairs], "masks")]
    hw = _hw_of(frames[0], rows[0])  # that of all frames of an IMAGE
    tracks: dict[int, Tensor] = {}
    for index, found in enumerate(frames):
        ids = [] if found.tracker_id is None else found.tracker_id.tolist()
        for tracker_id, inside in zip(ids, _iter_masks(found), strict=False):  # boxes have none
            if tracker_id >= 0:  # else it is on no track
                track = tracks.setdefault(tracker_id, torch.zeros((len(frames), *hw)))
                track[index].masked_fill_(torch.from_numpy(inside), 1)
    return [tracks[key] for key in sorted(tracks)] or [torch.zeros((len(frames), *hw))]


def _one_at_least(masks: Tensor) -> Tensor:
    """Where nothing was found at all, one empty mask: other nodes cannot stack a batch of none."""
    return masks if len(masks) else masks.new_zeros((1, *masks.shape[1:]))


def _iter_masks(detections: sv.Detections) -> Iterator[NDArray[np.bool_]]:
    """Decode masks one at a time; boxes alone have none."""
    from sam2_blocks.masks.detections import to_rles

    if detections.mask is None:
        return iter(())
    return (rle_to_mask(rle) for rle in to_rles(detections))


def _hw_of(detections: sv.Detections, row: Mapping[str, Any]) -> Hw:
    if detections.mask is not None:
        height, width = detections.mask.shape[-2:]
        return height, width
    for value in row.values():
        if isinstance(value, Image | Embedding):
            return value.hw if isinstance(value, Image) else value.image_hw
    return UNKNOWN_HW


def _cat(tensors: Sequence[Tensor], name: str) -> Tensor:
    import torch

    sizes = sorted({tuple(tensor.shape[1:3]) for tensor in tensors})
    if len(sizes) > 1:
        raise ValueError(f"{name!r}: one batch wants one size, got {sizes}")
    return torch.cat(list(tensors))
