"""Kinds: what a value on a wire must be, and its way from and to plain data.

A kind has Roboflow's name where the thing is the same. At compile time two sockets fit when they
share a kind; at run time every value a block takes or returns is checked against its kinds. Files,
services and hosts make plain data of a value by its kind's `Kind.dump`, and by nothing else, so
that a plugin's kind works in all of them. ``list of K`` is a kind wherever ``K`` is one. All
coordinates are xy pixels of the original, upright picture, origin in its top left corner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sam2_blocks.clips import Clip
from sam2_blocks.errors import ImageError, Sam2BlocksError, as_error, message_of
from sam2_blocks.formats import clip_prompts, clips, images
from sam2_blocks.formats.plain import DumpOptions, to_plain
from sam2_blocks.prompts import parse_prompts, prompts_to_plain
from sam2_blocks.values import Embedding, ExecutorSpec, Image, Prompt, PromptSet, VideoFrame

if TYPE_CHECKING:
    import supervision as sv

Check = Callable[[Any], None]
"""Raises TypeError, ValueError or ImageError when a value is not of the kind."""

Dump = Callable[[Any, DumpOptions], Any]
"""Makes JSON's dict, list, str, int, float, bool or None of a value of the kind."""

Sample = Callable[[bool], Any]
"""``sample(empty)`` makes a small value; with ``empty`` one without rows, where there are rows."""

ANY = "*"

LIST_OF = "list of "
"""Before the name of a kind: a list of its values."""

MOST_LISTS = 4
"""Lists in lists; names of kinds come from strangers, too."""

SAMPLE_HW = (24, 32)
"""Size of the pictures that samples are of."""


def _plain_or_refuse(value: Any, options: DumpOptions) -> Any:
    """Dump what is plain data already, or numpy's form of it."""

    def refuse(odd: Any) -> Any:
        raise TypeError(f"a {type(odd).__name__} is no plain data; give its kind a 'dump'")

    return to_plain(value, options, odd=refuse)


@dataclass(frozen=True)
class Kind:
    """The type of a socket.

    Attributes:
        name: as written in manifests.
        description: Python type, shape, dtype, units.
        check: raises TypeError, ValueError or ImageError when a value is not of this kind.
        parse: makes a value from plain data (YAML, JSON, paths); None where that is impossible.
        literal: whether a pipeline may have the value itself in place of a selector.
        dump: makes plain data of a value; by itself it takes numbers, texts, lists, mappings and
            numpy's arrays, and raises TypeError for anything else.
        sample: makes a value for examples and contract tests; None where there is none.
        settle: brings a checked value into one form, where a kind allows several.
        counted: whether ``len()`` of a value says how many it holds, for ``when: … is: not_empty``.
        empty: makes the value that holds none, for ``default: empty``.

    Example:
        >>> def check_metres(value):
        ...     if not isinstance(value, float):
        ...         raise TypeError(f"wants a float, got {type(value).__name__}")
        >>> metres = Kind("metres", "float, metres", check_metres, parse=float)
        >>> metres.parse("1.5")
        1.5
    """

    name: str
    description: str
    check: Check
    parse: Callable[[Any], Any] | None = None
    literal: bool = False
    dump: Dump = field(default=_plain_or_refuse, kw_only=True)
    sample: Sample | None = field(default=None, kw_only=True)
    settle: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    counted: bool = field(default=False, kw_only=True)
    empty: Callable[[], Any] | None = field(default=None, kw_only=True)


def find_kind(name: str, kinds: Mapping[str, Kind]) -> Kind | None:
    """Find a kind by name, or make that of lists of it.

    Args:
        name: such as ``image`` or ``list of image``.
        kinds: those that exist.
    """
    if name in kinds:
        return kinds[name]
    if not name.startswith(LIST_OF) or name.count(LIST_OF) > MOST_LISTS:
        return None
    of = find_kind(name.removeprefix(LIST_OF), kinds)
    return None if of is None else list_kind(of)


def kinds_named(names: Iterable[str], kinds: Mapping[str, Kind]) -> list[Kind]:
    """Find kinds by name, in the order of the names, without those that do not exist."""
    found = (find_kind(name, kinds) for name in names)
    return [kind for kind in found if kind is not None]


def kinds_fit(given: str, wanted: str) -> bool:
    """Whether a value of one kind may be wired to a socket of another."""
    if given == wanted or ANY in (given, wanted):
        return True
    if not given.startswith(LIST_OF):
        return False
    if wanted.startswith(LIST_OF):
        return kinds_fit(given.removeprefix(LIST_OF), wanted.removeprefix(LIST_OF))
    return wanted == "list_of_values"


def kind_of_element(name: str) -> str:
    """The name of the kind of a list's elements; empty if the kind is no list."""
    if name == "list_of_values":
        return ANY
    return name.removeprefix(LIST_OF) if name.startswith(LIST_OF) else ""


def element_kind(name: str) -> str:
    """The name of the kind at the bottom of lists of lists; the name itself if it is no list."""
    while name.startswith(LIST_OF):
        name = name.removeprefix(LIST_OF)
    return name


@lru_cache(maxsize=256)
def list_kind(of: Kind) -> Kind:
    """The kind of lists, or tuples, whose values are all of one kind."""

    def check(value: object) -> None:
        _each(of.check, value)

    return Kind(
        f"{LIST_OF}{of.name}",
        f"list of {of.description}",
        check,
        None if of.parse is None else partial(_each, lambda one: parse_value(one, [of])),
        of.literal,
        dump=lambda value, options: _each(lambda one: of.dump(one, options), value),
        sample=None if of.sample is None else _list_sample(of.sample),
        settle=list if of.settle is None else partial(_each, of.settle),
        counted=True,
        empty=list,
    )


def _each(convert: Callable[[Any], Any], value: object) -> list[Any]:
    """Convert the values of a list; what is wrong with one of them is said with its place."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"wants a list, got {_shape_of(value)}")
    made = []
    for index, one in enumerate(value):
        try:
            made.append(convert(one))
        except (TypeError, ValueError, ImageError) as error:
            raise type(error)(f"[{index}]: {error}") from error
    return made


def _list_sample(sample: Sample) -> Sample:
    return lambda empty: [] if empty else [sample(False), sample(True)]


def check_value(value: object, kinds: Iterable[Kind]) -> Any:
    """Check a value against a socket's kinds, in order; one must fit.

    Returns:
        The value, in the one form of the first kind that fits.

    Raises:
        TypeError: if the value is of none of the kinds; the message says what each expected.
    """
    reasons = []
    for kind in kinds:
        try:
            kind.check(value)
            return value if kind.settle is None else kind.settle(value)
        except (TypeError, ValueError, ImageError) as error:
            reasons.append(f"{kind.name}: {error}")
    raise TypeError("; ".join(reasons))


def parse_value(value: object, kinds: Iterable[Kind]) -> Any:
    """Make a value of one of the kinds from plain data.

    Args:
        value: plain data, or a value that fits a kind already.
        kinds: of a socket; the first that can read the data does.

    Raises:
        TypeError, ValueError, ImageError: if no kind accepts it.
    """
    listed = list(kinds)
    try:
        return check_value(value, listed)
    except TypeError:
        for kind in listed:
            if kind.parse is not None:
                return check_parsed(kind.parse(value), kind)
        raise


def check_parsed(value: Any, kind: Kind) -> Any:
    """Check what a kind's ``parse`` made, and bring it into its one form; see `Kind.settle`."""
    kind.check(value)
    return value if kind.settle is None else kind.settle(value)


def dump_value(value: object, kinds: Iterable[Kind], options: DumpOptions | None = None) -> Any:
    """Make plain data of a value, by the first of a socket's kinds that it fits; None is null.

    Args:
        value: an output or input of a block.
        kinds: those of its socket.
        options: how masks are written.

    Raises:
        TypeError: if the value is of none of the kinds, or its kind cannot be plain data.
    """
    if value is None:
        return None
    reasons = []
    for kind in kinds:
        try:
            kind.check(value)
        except BaseException as error:  # a plugin's kind may fail in any way
            reasons.append(f"{kind.name}: {message_of(as_error(error))}")
            continue
        try:
            return kind.dump(value, options or DumpOptions())
        except Sam2BlocksError:
            raise
        except BaseException as error:
            cause = as_error(error)
            raise TypeError(f"cannot be written as {kind.name}: {message_of(cause)}") from cause
    raise TypeError("; ".join(reasons))


def _instance_of(*types: type, name: str) -> Check:
    def check(value: object) -> None:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise TypeError(f"wants {name}, got {_shape_of(value)}")

    return check


def _check_image(value: object) -> None:
    if not isinstance(value, Image):
        raise TypeError(f"wants Image, got {_shape_of(value)}")
    images.array_to_image(value.pixels, value.id)


def _parse_image(value: object) -> Image:
    if isinstance(value, str | Path | bytes):
        return images.read_image(value)
    if isinstance(value, Image):
        _check_image(value)  # says what is wrong with its pixels
        return value
    return images.array_to_image(value)


def _check_detections(value: object) -> None:
    import supervision as sv

    if not isinstance(value, sv.Detections):
        raise TypeError(f"wants supervision.Detections, got {_shape_of(value)}")
    if value.xyxy.ndim != 2 or value.xyxy.shape[1] != 4:
        raise ValueError(f"wants xyxy of shape (N, 4), got {value.xyxy.shape}")


def _check_masks(value: Any) -> None:
    """Check detections that have masks; boxes without may be NaN, which a detector gives at times.

    One such box must not cost the picture its others: who uses boxes looks at them row by row.
    """
    _check_detections(value)
    if not np.isfinite(value.xyxy).all():
        row = int(np.flatnonzero(~np.isfinite(value.xyxy).all(axis=1))[0])
        raise ValueError(f"box {row} is not finite: {value.xyxy[row].tolist()}")
    if len(value) and value.mask is None and "rle_mask" not in value.data:
        raise ValueError("wants detections with masks, got detections without")


def _settle_detections(value: Any) -> sv.Detections:
    from sam2_blocks.masks.detections import settle_masks

    return settle_masks(value)


def _check_keypoints(value: Any) -> None:
    _check_detections(value)
    if len(value) and "keypoints_xy" not in value.data:
        raise ValueError("wants data['keypoints_xy'], got none")


def _parse_detections(value: object) -> sv.Detections:
    from sam2_blocks.formats.rows import rows_to_detections

    return rows_to_detections(value)


def _dump_embedding(value: Embedding, options: DumpOptions) -> dict[str, Any]:
    from sam2_blocks.executor.embedding_json import embedding_to_json

    return embedding_to_json(value)


def _shape_of(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array {value.shape}"
    return type(value).__name__


# --- samples ----------------------------------------------------------------------------------


def sample_image(image_id: str = "sample.png") -> Image:
    """A small picture, the same every time; also the first frame of a video."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*SAMPLE_HW, 3), dtype=np.uint8)
    return Image(pixels, image_id, video=VideoFrame("sample", 0))


def sample_embedding(image: Image, spec: ExecutorSpec | None = None) -> Embedding:
    """An embedding of zeros, made without torch."""
    zeros = cast(Any, np.zeros((1, 4, 4, 4), dtype=np.float32))
    spec = spec or ExecutorSpec("fake", "cpu", "float32")
    return Embedding(zeros, (zeros, zeros), image.hw, image.id, f"fake:{image.id}", spec)


def sample_detections(count: int = 2) -> sv.Detections:
    """``sv.Detections`` with masks, classes and keypoints: they fit every such kind."""
    from sam2_blocks.formats.rows import rows_to_detections
    from sam2_blocks.masks.detections import to_detections
    from sam2_blocks.masks.rle import masks_to_prediction

    rows = [
        {"box_xyxy": [2, 3, 12, 15], "class_name": "face", "confidence": 0.9},
        {"box_xyxy": [14, 5, 30, 20], "class_name": "object", "class_id": 1, "confidence": 0.6},
    ]
    prompting = rows_to_detections(rows[:count])
    masks = np.zeros((len(prompting), *SAMPLE_HW), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, prompting.xyxy.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    prediction = masks_to_prediction(masks, np.full(len(masks), 0.75))
    detections = to_detections(prediction, prompting=prompting, image_id="sample.png")
    detections.data["keypoints_xy"] = np.zeros((len(masks), 3, 2), dtype=np.float32)
    return detections


def _sample_image(empty: bool) -> Image:
    return sample_image("empty.png" if empty else "sample.png")


def _sample_prompts(empty: bool) -> PromptSet:
    return PromptSet(() if empty else (Prompt(box_xyxy=np.array([2, 3, 12, 15], np.float32)),))


def _plain(name: str, description: str, value: object, *types: type, **options: Any) -> Kind:
    check = _instance_of(*types, name=description)
    return Kind(
        name,
        description,
        check,
        lambda value: value,
        True,
        dump=to_plain,
        sample=_always(value),
        **options,
    )


def _no_detections() -> sv.Detections:
    from sam2_blocks.formats.rows import boxes_to_detections

    return boxes_to_detections([])


def _always(value: object) -> Sample:
    return lambda _: value


def _detections(name: str, more: str, check: Check, **options: Any) -> Kind:
    return Kind(
        name,
        f"supervision.Detections, xyxy float (N, 4) pixels{more}",
        check,
        dump=to_plain,
        sample=lambda empty: sample_detections(0 if empty else 2),
        settle=_settle_detections,
        counted=True,
        empty=_no_detections,
        **options,
    )


BUILTIN_KINDS = (
    Kind(
        "image",
        "Image: uint8 (H, W, 3) RGB with an id",
        _check_image,
        _parse_image,
        dump=to_plain,
        sample=_sample_image,
    ),
    Kind(
        "image_embedding",
        "Embedding: image_embed (1, C, h/4, w/4) and high_res_feats of one picture",
        _instance_of(Embedding, name="Embedding"),
        dump=_dump_embedding,
        sample=lambda empty: sample_embedding(_sample_image(empty)),
    ),
    Kind(
        "prompts",
        "PromptSet: boxes, points and mask logits, one prompt an object",
        _instance_of(PromptSet, name="PromptSet"),
        parse_prompts,
        literal=True,
        dump=lambda value, options: prompts_to_plain(value),
        sample=_sample_prompts,
        counted=True,
        empty=PromptSet,
    ),
    Kind(
        "clip",
        "Clip: a video by its path and the numbers of its frames, without pixels",
        _instance_of(Clip, name="Clip"),
        clips.plain_to_clip,
        dump=lambda value, options: clips.clip_to_plain(value),
        sample=lambda empty: clips.sample_clip(),
        counted=True,
    ),
    Kind(
        "clip_prompts",
        "list of ClipPrompt: frame, tracker_id, and a box, points or a mask each",
        clip_prompts.check_clip_prompts,
        clip_prompts.parse_clip_prompts,
        literal=True,
        dump=lambda value, options: clip_prompts.clip_prompts_to_plain(value),
        sample=lambda empty: () if empty else clips.sample_prompts(),
        settle=tuple,
        counted=True,
        empty=tuple,
    ),
    _detections(
        "object_detection_prediction",
        "",
        _check_detections,
        parse=_parse_detections,
        literal=True,
    ),
    _detections("instance_segmentation_prediction", ", with mask", _check_masks),
    _detections(
        "rle_instance_segmentation_prediction",
        ", with mask, which is written as COCO RLE",
        _check_masks,
    ),
    _detections(
        "keypoint_detection_prediction",
        ", with data['keypoints_xy'] (N, K, 2)",
        _check_keypoints,
    ),
    _plain("string", "str", "text", str),
    _plain("integer", "int", 1, int),
    _plain("float", "float or int", 0.5, float, int),
    _plain("boolean", "bool", True, bool),
    _plain("list_of_values", "list", [], list, counted=True, empty=list),
    _plain("dictionary", "dict", {}, dict, counted=True, empty=dict),
    Kind(
        ANY,
        "any value",
        lambda _: None,
        lambda value: value,
        True,
        dump=to_plain,
        sample=_always(None),
    ),
)
