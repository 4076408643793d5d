"""What requests and responses have in common as JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

NEARLY = 0.81
"""How alike a key and a known one are, from 0 to 1, to be taken for a slip."""
FURTHER_LETTERS = 2
"""By how many letters a slip may be longer or shorter."""


class Entity(BaseModel):
    """Base of all: ignores unknown keys, and leaves out the extensions that are not used.

    A key that is nearly a known one is a slip: ignored, it would give an answer nobody asked for.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())
    extensions: ClassVar[frozenset[str]] = frozenset()
    also_read: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _refuse_slips(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            refuse_near_misses(given, {*cls.model_fields, *cls.also_read})
        elif not isinstance(given, cls):
            fields = ", ".join(map(repr, cls.model_fields))
            raise ValueError(f"wants an object with {fields}, got {type(given).__name__}")
        return given

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        unused = {name for name in self.extensions if fields.get(name) is None}
        return {name: value for name, value in fields.items() if name not in unused}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe the fields; pydantic would see only that the serializer returns a dict."""
        return handler(_without_serializer(core_schema))


def _without_serializer(schema: Any) -> Any:
    is_validator = schema["type"].startswith("function")
    return {
        key: _without_serializer(part) if key == "schema" and is_validator else part
        for key, part in schema.items()
        if key != "serialization"
    }


def refuse_near_misses(given: Mapping[str, Any], known: set[str]) -> None:
    """Refuse keys that look like misspelt known ones; other unknown keys are let through.

    Args:
        given: what a client sent.
        known: the keys that are read.

    Raises:
        ValueError: naming the key that was meant.
    """
    otherwise_written = {_letters(name): name for name in sorted(known)}
    for key in map(str, given.keys() - known):
        alike = sorted(name for name in known if abs(len(name) - len(key)) <= FURTHER_LETTERS)
        close = get_close_matches(key, alike, n=1, cutoff=NEARLY) if len(key) > 3 else []
        meant = otherwise_written.get(_letters(key), *close[:1])
        if meant:
            raise ValueError(f"unknown key {key!r}. Did you mean {meant!r}?")


def _letters(key: str) -> str:
    """A key without what differs between ways to write it: ``imageId`` and ``image-id``."""
    return key.replace("_", "").replace("-", "").lower()
