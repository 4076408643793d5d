"""Errors → answers: a status, a ``message``, and the problems one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from sam2_blocks.errors import DocumentError, ModelError, Sam2BlocksError
from sam2_blocks.service.errors import BusyError, RequestError

MAX_PROBLEMS = 20
MAX_MESSAGE = 2000
MAX_DETAIL = 500
"""Longest text in one problem; what came may be repeated in it."""


class MalformedError(RequestError):
    """The fields of a request do not fit its model."""

    def __init__(self, error: ValidationError) -> None:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        self.problems = [
            {"loc": _cut_all(problem["loc"]), "msg": _cut(problem["msg"]), "type": problem["type"]}
            for problem in found[:MAX_PROBLEMS]
        ]
        super().__init__("; ".join(_describe(problem) for problem in self.problems))


def add_error_handlers(app: FastAPI) -> None:
    """Let every error become an answer that says where, what and why."""

    @app.exception_handler(Sam2BlocksError)
    async def ours(_: Request, error: Sam2BlocksError) -> Response:
        headers = {}
        if isinstance(error, BusyError):
            headers["Retry-After"] = str(error.retry_after_s)
        return _error_response(_status_of(error), str(error), _detail_of(error), headers)

    @app.exception_handler(HTTPException)
    async def of_the_router(request: Request, error: HTTPException) -> Response:
        said = f"{error.detail}{_advice(request, error)}"
        return _error_response(error.status_code, said, None, error.headers or {})

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        return _error_response(500, "an error inside the service; its log says more.")


def _advice(request: Request, error: HTTPException) -> str:
    """What to do about a route that is not there, or not for this method."""
    path = _cut(request.url.path)
    if error.status_code == 404:
        return f": there is no {path} here; /docs lists what there is."
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return f": {path} wants {allowed}, got {request.method}."
    return ""


def _status_of(error: Sam2BlocksError) -> int:
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, DocumentError):
        return 422
    return 503 if isinstance(error, ModelError) else 500


def _detail_of(error: Sam2BlocksError) -> Any:
    if isinstance(error, MalformedError):
        return error.problems
    if isinstance(error, DocumentError):
        problems: Sequence[Any] = error.problems[:MAX_PROBLEMS]
        return [
            {"loc": _cut_all(problem.where.split(".")), "msg": _cut(problem.message)}
            for problem in problems
        ]
    return None


def _error_response(
    status: int, message: str, detail: Any = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Say it twice: ``message`` is ours, and clients of FastAPI look for ``detail``."""
    message = _cut(message, MAX_MESSAGE)
    content = to_json({"message": message, "detail": detail or message}, inf_nan_mode="null")
    return Response(content, status, dict(headers or {}), media_type="application/json")


def _cut(text: str, most: int = MAX_DETAIL) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _cut_all(place: Iterable[str | int]) -> list[str | int]:
    return [_cut(part) if isinstance(part, str) else part for part in place]


def _describe(problem: Mapping[str, Any]) -> str:
    place = ".".join(map(str, problem["loc"]))
    text = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text
