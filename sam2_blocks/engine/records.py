"""What goes into a run and what comes out of it: items, results, and why something is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sam2_blocks.values import Hw

Outputs = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """One unit of work.

    Attributes:
        id: name for messages and output files, unique within a run.
        inputs: values by pipeline input. A callable is called in a reader thread when its
            micro-batch comes; plain data is parsed by the input's kind.
        stamp: changes when what the item stands for changes, such as size and time of a file;
            empty if nobody can tell, and no run counts the item as finished then.
        group: items of one group are run in order and all of them, for what is remembered from one
            to the next, such as the frames of a video; empty for items on their own.
        source: the path or URL of what the item stands for, where there is one.
        place: its number among all items of its source, from 0; None until it is counted.
        own: inputs whose values are of this item, where others have other ones. If a model that one
            of them names, or says the device of, cannot be loaded, this item fails alone; else the
            run ends.

    Example:
        >>> item = Item("dark.png", {"image": "pictures/dark.png"})  # the kind reads the file
        >>> item.id
        'dark.png'
    """

    id: str
    inputs: Mapping[str, Any]
    stamp: str = ""
    group: str = ""
    source: str = field(default="", kw_only=True)
    place: int | None = field(default=None, kw_only=True)
    own: Collection[str] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class ErrorRecord:
    """Why one item failed.

    Attributes:
        item: id of the item.
        step: id of the step, or ``inputs`` if the item could not be read.
        block: id of the step's block; empty for ``inputs``.
        message: what was wrong and what to do.
        cause: type of the underlying exception.
        index: number of the element, if one of a list failed.

    Example:
        >>> error = ErrorRecord("a.jpg", "boxes", "my/boxes@v1", "no such file", "ValueError")
        >>> f"{error.item}, step {error.step}: {error.message}"
        'a.jpg, step boxes: no such file'
    """

    item: str
    step: str
    block: str
    message: str
    cause: str
    index: int | None = None


@dataclass(frozen=True)
class SkipRecord:
    """Why a step did not run for an item, or an element was dropped; no error.

    Attributes:
        item: id of the item.
        step: id of the step.
        block: id of the step's block.
        reason: the condition that did not hold, what is missing, or how the element failed.
        index: number of the element that was dropped; None if the step was skipped.

    Example:
        >>> skip = SkipRecord("a.jpg", "segment", "sam2/segment@v1", "'when' does not hold")
        >>> f"{skip.item}, step {skip.step}: {skip.reason}"
        "a.jpg, step segment: 'when' does not hold"
    """

    item: str
    step: str
    block: str
    reason: str
    index: int | None = None


@dataclass(frozen=True)
class ItemResult:
    """What became of one item.

    Attributes:
        id: id of the item.
        outputs: pipeline outputs by name; those that a failed or skipped step should have made are
            missing, if they have no default.
        errors: what failed; empty on success.
        skipped: steps that did not run, and elements that were dropped.
        image_hw: size of the item's first picture; None if it could not be read.
        item: what it was made of, without its inputs; None outside of a run.

    Example:
        >>> result = ItemResult("a.jpg", {"count": 3})
        >>> result.outputs["count"], result.errors
        (3, ())
    """

    id: str
    outputs: Outputs
    errors: tuple[ErrorRecord, ...] = ()
    skipped: tuple[SkipRecord, ...] = ()
    image_hw: Hw | None = field(default=None, kw_only=True)
    item: Item | None = field(default=None, kw_only=True)
