"""YAML text → plain data that remembers where every value stood.

YAML is data here: no tags, no merge keys, no aliases that multiply, no key given twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sam2_blocks.errors import Problem, did_you_mean

MAX_NODES = 50_000
"""Values one document may hold once its aliases are expanded."""

MAX_DEPTH = 40
"""Levels of nesting one document may have."""

PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"

DocumentPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """One parsed YAML file.

    Attributes:
        source: file name for messages.
        data: plain dicts, lists, strings, numbers, booleans and None.
        positions: (line, column) of every key and list item, counted from 1, by path.
        problems: what was wrong with the text itself.
    """

    source: str
    data: Any
    positions: Mapping[DocumentPath, tuple[int, int]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def problem(self, path: DocumentPath, message: str) -> Problem:
        """Make a problem that points at ``path``, or at the closest parent that has a place."""
        where = ".".join(str(part) for part in path)
        for end in range(len(path), -1, -1):
            if path[:end] in self.positions:
                line, column = self.positions[path[:end]]
                return Problem(message, where, line, column)
        return Problem(message, where)


def read_pipeline_text(path: Path) -> str:
    """Read the text of a pipeline.

    Raises:
        ValueError: if there is no such file, or it is no text; says what to give instead.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"no such file.{_nearest_file(path)}") from None
    except IsADirectoryError:
        raise ValueError("it is a folder; a pipeline is a file of YAML.") from None
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8; a pipeline is a file of YAML.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{getattr(error, 'strerror', None) or error}.") from error


def _nearest_file(path: Path) -> str:
    try:
        beside = [file.name for file in path.parent.iterdir() if file.suffix in {".yaml", ".yml"}]
    except OSError:
        return ""
    close = get_close_matches(path.name, beside, n=1, cutoff=0.5)
    return f" Did you mean {str(path.with_name(close[0]))!r}?" if close else ""


def parse_yaml(text: str, source: str = "<text>") -> Document:
    """Parse YAML 1.2 text.

    Args:
        text: the document.
        source: file name for messages.

    Returns:
        The document; problems with the text are listed in it, not raised.
    """
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except RecursionError:
        return Document(source, None, {}, (Problem(f"nested deeper than {MAX_DEPTH} levels"),))
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        what = error.problem if isinstance(error, MarkedYAMLError) else str(error)
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        return Document(source, None, {}, (Problem(f"not valid YAML: {what}", "", line, column),))
    if node is None:
        return Document(source, None, {}, (Problem("the document is empty"),))
    reader = _NodeReader()
    data = reader.read(node, ())
    return Document(source, data, reader.positions, tuple(reader.problems))


def data_document(data: object, source: str = "<data>") -> Document:
    """Wrap plain data that never was YAML text, such as a decoded JSON body.

    Args:
        data: as YAML would have given it.
        source: what messages call it; they have no lines.
    """
    return Document(source, data)


def validation_problems(
    document: Document, error: ValidationError, model: type[BaseModel], at: DocumentPath = ()
) -> list[Problem]:
    """Say each pydantic error in our words, at its place in the document.

    Args:
        document: what was validated.
        error: what pydantic found.
        model: the model it was validated with, for the names it would have accepted.
        at: where in the document the validated value stands.
    """
    return [_explain(document, detail, model, at) for detail in error.errors(include_url=False)]


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return each problem once, in the order of the document."""
    once = dict.fromkeys(problems)
    return sorted(once, key=lambda one: (one.source, one.line or 0, one.column or 0))


def without_unknown_keys(data: Any, error: ValidationError, model: type[BaseModel]) -> Any:
    """Copy data so that what else is wrong with it can be found, too.

    Args:
        data: what was validated.
        error: what pydantic found.
        model: the model it was validated with.

    Returns:
        The data without unknown keys; one that is nearly a key which is missing stands for that.
    """
    copied = deepcopy(data)
    for detail in error.errors(include_url=False, include_input=False):
        if detail["type"] != "extra_forbidden":
            continue
        *inner, key = detail["loc"]
        inside = copied
        for part in inner:
            inside = inside[part]
        value = inside.pop(key)
        near = get_close_matches(str(key), _field_names(model, tuple(inner)), n=1, cutoff=0.5)
        if near:
            inside.setdefault(near[0], value)
    return copied


def _explain(document: Document, detail: Any, model: type[BaseModel], at: DocumentPath) -> Problem:
    inner: DocumentPath = tuple(detail["loc"])
    path = (*at, *inner)
    if detail["type"] == "extra_forbidden":
        hint = did_you_mean(str(path[-1]), _field_names(model, inner[:-1]))
        return document.problem(path, f"unknown key {path[-1]!r}.{hint}")
    if detail["type"] == "missing":
        return document.problem(path, f"{path[-1]!r} is required.")
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return document.problem(path, f"{message}.")
    return document.problem(path, f"{message}, got {_shorten(detail['input'])}.")


def _field_names(model: type[BaseModel], path: DocumentPath) -> list[str]:
    """Names YAML may use inside the value at ``path`` of a model."""
    for part in path:
        for name, info in model.model_fields.items():
            if part in (name, info.alias):
                nested = _models_in(info.annotation)
                if nested:
                    model = nested[0]
    return [info.alias or name for name, info in model.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


class _NodeReader:
    """Turns the composed node graph into data; one instance reads one document."""

    def __init__(self) -> None:
        self.positions: dict[DocumentPath, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self._constructor = YAML(typ="safe", pure=True).constructor
        self._read = 0
        self._too_deep = False

    def read(self, node: Node, path: DocumentPath) -> Any:
        self.positions.setdefault(path, _place(node))
        self._read += 1
        if self._read > MAX_NODES:
            if self._read == MAX_NODES + 1:
                self._report(node, path, f"more than {MAX_NODES} values; do aliases multiply it?")
            return None
        if len(path) > MAX_DEPTH and not self._too_deep:
            self._report(node, path[:1], f"nested deeper than {MAX_DEPTH} levels")
            self._too_deep = True
        if self._too_deep:
            return None  # one report is enough, and what follows may be endless
        if isinstance(node, MappingNode | SequenceNode) and str(node.tag) not in PLAIN_TAGS:
            self._refuse_tag(node, path)
            return None
        if isinstance(node, MappingNode):
            return self._read_mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.read(child, (*path, i)) for i, child in enumerate(node.value)]
        return self._read_scalar(node, path)

    def _read_mapping(self, node: MappingNode, path: DocumentPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if self._read > MAX_NODES:
                break
            if not isinstance(key_node, ScalarNode):
                self._report(key_node, path, "a key must be plain text")
                continue
            key = key_node.value
            child = (*path, key)
            if key in data:
                line, _ = self.positions[child]
                message = f"key {key!r} is given twice; the first is in line {line}. Keep one."
                self._report(key_node, child, message)
            else:
                self.positions[child] = _place(key_node)
                data[key] = self.read(value_node, child)
        return data

    def _read_scalar(self, node: Node, path: DocumentPath) -> Any:
        if str(node.tag) == TIMESTAMP_TAG:
            return str(node.value)  # dates stay the text they were written as
        try:
            value = self._constructor.construct_object(node)
        except YAMLError:
            self._refuse_tag(node, path)
            return None
        except (ValueError, LookupError, OverflowError):
            kind = str(node.tag).rpartition(":")[2]
            self._report(node, path, f"not a valid {kind}: {_shorten(node.value)}")
            return None
        return value if isinstance(value, str | bool | int | float | None) else str(node.value)

    def _refuse_tag(self, node: Node, path: DocumentPath) -> None:
        self._report(node, path, f"the tag {node.tag!s} is not allowed: YAML is only data here")

    def _report(self, node: Node, path: DocumentPath, message: str) -> None:
        self.problems.append(Problem(message, ".".join(map(str, path)), *_place(node)))


def _place(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
