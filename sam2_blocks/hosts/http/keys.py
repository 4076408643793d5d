"""API keys, wherever they travel: in a header, in the address, or in the body."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from typing import Any

from fastapi import Request

from sam2_blocks.service.errors import UnauthorizedError


class ApiKeys:
    """The keys that let a request in.

    Args:
        given: one, or several separated by commas; None or none lets everybody in.
    """

    def __init__(self, given: str | None) -> None:
        self._keys = [key for key in map(str.strip, (given or "").split(",")) if key]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def check_head(self, request: Request) -> str | None:
        """Check the key of a request by its headers and address, before the body is read.

        Args:
            request: the request.

        Returns:
            The key; empty where none is needed, None if the body has to show it.

        Raises:
            UnauthorizedError: if there is a key, and it is none of ours.
        """
        if not self._keys:
            return ""
        given = _keys_before_body(request)
        return self._find(given) if given else None

    def check(self, request: Request, body: Mapping[str, Any] | None = None) -> str:
        """Check the key of a request, wherever it is.

        Args:
            request: its headers and address.
            body: what was read; its ``api_key`` counts, too.

        Returns:
            The key; empty where none is needed.

        Raises:
            UnauthorizedError: if there is none of ours.
        """
        if not self._keys:
            return ""
        in_body = str((body or {}).get("api_key") or "").encode("utf-8", "replace")
        return self._find([*_keys_before_body(request), in_body])

    def _find(self, given: list[bytes]) -> str:
        """Compare in a time that says nothing about the keys."""
        matches = {
            key: sum(hmac.compare_digest(one, key.encode()) for one in given) for key in self._keys
        }
        found = [key for key, count in matches.items() if count]
        if not found:
            raise UnauthorizedError(
                "the API key is missing or wrong. Send it as 'Authorization: Bearer KEY', as "
                "'?api_key=KEY', or as api_key in the body."
            )
        return found[0]


def _keys_before_body(request: Request) -> list[bytes]:
    """What ``Authorization: Bearer`` or ``Basic``, ``X-API-Key`` and ``?api_key=`` say."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = [
        token.strip().encode("latin-1") if scheme.lower() == "bearer" else b"",
        _password_of(token) if scheme.lower() == "basic" else b"",
        request.headers.get("x-api-key", "").encode("latin-1"),
        request.query_params.get("api_key", "").encode("utf-8", "replace"),
    ]
    return [key for key in given if key]


def _password_of(token: str) -> bytes:
    """The password of ``Authorization: Basic``, the one form that Label Studio has."""
    try:
        return base64.b64decode(token.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return b""
