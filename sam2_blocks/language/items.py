"""What a block's class says its items are, compared with what its manifest says they are.

The annotation of ``run(self, items: Sequence[Item])`` names a `Protocol` with an attribute for each
input and parameter. Type checkers hold the block to it; here it is held to the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sam2_blocks.errors import did_you_mean
from sam2_blocks.language.manifest import Manifest, Param

TYPES = {
    "string": (str,),
    "integer": (int,),
    "number": (float,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def item_problems(block: type[Any], manifest: Manifest) -> Iterator[str]:
    """Say where a block's idea of an item differs from its manifest; nothing if it declares none.

    Args:
        block: the class that the manifest's ``entry`` names.
        manifest: the block's.
    """
    try:
        item = _item_of(block)
        declared = {} if item is None else get_type_hints(item)
    except NameError as error:  # imported for type checkers alone
        yield f"{block.__name__}.run: its annotations cannot be read here: {error}"
        return
    if item is None:
        return
    for name in sorted(declared.keys() - set(manifest.names)):
        hint = did_you_mean(name, manifest.names)
        yield f"{item.__name__}.{name}: the manifest has no such input or parameter.{hint}"
    for name in manifest.names:
        if name not in declared:
            yield f"{item.__name__} lacks {name!r}, which the manifest gives every item"
        elif wrong := _wrong_type(manifest, name, declared[name]):
            yield f"{item.__name__}.{name}: {wrong}"


def _item_of(block: type[Any]) -> type[Any] | None:
    """The protocol that ``run`` declares of its items, if it does."""
    hints = get_type_hints(block.run)
    hints.pop("return", None)
    for hint in hints.values():
        for argument in get_args(hint):
            if isinstance(argument, type) and getattr(argument, "_is_protocol", False):
                return argument
    return None


def _wrong_type(manifest: Manifest, name: str, hint: Any) -> str:
    """How an annotation differs from what the manifest gives; empty if it does not."""
    types = set(_types_of(hint))
    if Any in types or object in types:
        return ""
    param = manifest.params.get(name)
    may_lack = not manifest.inputs[name].required if param is None else param.default is None
    if may_lack != (NoneType in types):
        is_or_not = "may be None" if may_lack else "is never None"
        return f"{is_or_not} in the manifest, which the annotation {hint} does not say"
    if param is not None and not types - {NoneType} <= set(_types_wanted(param)):
        return f"the manifest says {param.type}, the annotation {hint}"
    return ""


def _types_wanted(param: Param) -> tuple[type, ...]:
    return tuple({type(value) for value in param.enum}) if param.enum else TYPES[param.type]


def _types_of(hint: Any) -> Iterator[Any]:
    """The classes that an annotation stands for."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for argument in get_args(hint):
            yield from _types_of(argument)
    elif origin is Literal:
        yield from {type(value) for value in get_args(hint)}
    else:
        yield origin or hint
