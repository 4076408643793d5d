"""Bodies of requests → plain data, bounded in size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Request
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message, Scope

from sam2_blocks.service.errors import RequestError, TooLargeError

MAX_VALUES = 200_000
"""Most values (numbers, strings, lists, …) in one request; an image is one."""

FORM = "multipart/form-data"

JSON_FIELDS = frozenset(
    {"prompts", "automatic_masks", "inputs", "pipeline", "corrections", "removals", "frames"}
)
"""Fields of a form that are no plain text."""


async def read_body(
    request: Request,
    *,
    max_bytes: int,
    max_values: int = MAX_VALUES,
    take: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Read a JSON object, or a multipart form, as plain data.

    In a form, ``image`` is an uploaded file, ``request`` a JSON object with any of the other
    fields, and each further field overrides it; those of `JSON_FIELDS` are JSON.

    Args:
        request: the request.
        max_bytes: largest body.
        max_values: most values in it.
        take: told of every piece how many bytes it has; may refuse it.

    Raises:
        TooLargeError: if it has too many bytes or too many values.
        RequestError: if it is neither, or compressed.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise RequestError(f"the body is compressed ({encoding!r}); send it as it is.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 15 or int(declared) > max_bytes):
        raise _too_many_bytes(max_bytes)
    limited = Request(_with_plain_type(request.scope), _limited(request.receive, max_bytes, take))
    if limited.headers.get("content-type", "").startswith(FORM):
        fields = await _read_form(limited, max_bytes)
    else:
        fields = _parse_object(await limited.body(), "the body", max_values)
    _check_number_of_values(fields, max_values)
    return fields


def _with_plain_type(scope: Scope) -> dict[str, Any]:
    """Write the type of a form in small letters; some parsers of forms know no other."""
    headers = [
        (name, FORM.encode() + value[len(FORM) :])
        if name == b"content-type" and value[: len(FORM)].lower() == FORM.encode()
        else (name, value)
        for name, value in scope["headers"]
    ]
    return {**scope, "headers": headers}


def _limited(
    receive: Callable[[], Awaitable[Message]], max_bytes: int, take: Callable[[int], None]
) -> Callable[[], Awaitable[Message]]:
    received = 0

    async def receive_some() -> Message:
        nonlocal received
        message = await receive()
        nbytes = len(message.get("body", b""))
        received += nbytes
        if received > max_bytes:
            raise _too_many_bytes(max_bytes)
        take(nbytes)
        return message

    return receive_some


async def _read_form(request: Request, max_bytes: int) -> dict[str, Any]:
    try:
        form = await request.form(max_files=1, max_fields=50, max_part_size=max_bytes)
    except HTTPException as error:
        raise RequestError(f"the form is malformed: {error.detail}") from error
    async with request.form():
        fields = _parse_object(str(form.get("request", "{}")).encode(), "request")
        for name, value in form.items():
            if isinstance(value, UploadFile):
                fields[name] = await _read_upload(value, name)
            elif name in JSON_FIELDS:
                fields[name] = _parse_json(value.encode(), name)
            elif name != "request":
                fields[name] = value
    return fields


async def _read_upload(upload: UploadFile, name: str) -> dict[str, Any]:
    content = await upload.read()
    if not content:
        raise RequestError(f"{name}: the uploaded file is empty.")
    return {"type": "multipart", "value": content}


def _parse_object(content: bytes, name: str, max_values: int = MAX_VALUES) -> dict[str, Any]:
    parsed = _parse_json(content, name, max_values)
    if not isinstance(parsed, dict):
        raise RequestError(f"{name} must be a JSON object, got {type(parsed).__name__}.")
    return parsed


def _parse_json(content: bytes, name: str, max_values: int = MAX_VALUES) -> Any:
    # Before anything is made of it: three bytes of text are a list of 56 in memory. A value has two
    # marks at most, so this refuses nothing that may pass.
    if sum(map(content.count, (b",", b"[", b"{"))) > 2 * max_values:
        raise TooLargeError(f"{name} holds more than {max_values} values.")
    try:
        return from_json(content)
    except ValueError as error:
        raise RequestError(f"{name} is not JSON: {error}.") from error


def _check_number_of_values(fields: Mapping[str, Any], most: int) -> None:
    """Count before anything is made of them: small bodies can hold very many."""
    count = 0
    pending: list[Any] = list(fields.values())
    while pending and count <= most:
        value = pending.pop()
        count += 1
        if isinstance(value, dict | list):
            count += len(value)
            if count <= most:
                pending += value.values() if isinstance(value, dict) else value
    if count > most:
        raise TooLargeError(f"the request holds more than {most} values.")


def _too_many_bytes(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the request is larger than {max_bytes} bytes.")
