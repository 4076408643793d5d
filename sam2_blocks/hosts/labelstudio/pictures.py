"""Where the picture of a task is, and how to get at it.

Label Studio names pictures as its own page does: ``/data/upload/…`` and ``/data/local-files/?d=…``
are on its server, ``s3://…`` and the like are resolved by it, and other addresses are anybody's.
Only its own get its access token.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, unquote, urlsplit

import requests

from sam2_blocks.requests import InferenceRequestImage
from sam2_blocks.service import Service
from sam2_blocks.service.errors import ImageRefusedError, UnansweredError
from sam2_blocks.service.fetch import FetchLimits, origin_of

IN_CLOUDS = ("s3://", "gs://", "azure-blob://")
WITH_TOKEN = ("/data/", "/tasks/", "/storage-data/")
"""Addresses of pictures on its server; what is elsewhere there is nobody's picture."""
ACCESS_S = 240.0
"""How long what is got for a personal access token is used; it holds for five minutes."""
FIELD = "the picture of the task"


class TaskPictures:
    """Gets at the pictures of tasks; lives in the event loop of a service.

    Args:
        service: whose limits hold, and whose settings say where Label Studio is.

    Raises:
        ImageRefusedError: if its address is malformed.
    """

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self._service = service
        self._base = (settings.label_studio_url or "").rstrip("/")
        self._origin = _checked_origin(self._base) if self._base else ""
        self._token = _Token(self._base, settings.label_studio_key or "", settings.url_timeout_s)

    @asynccontextmanager
    async def opened(self, address: str, task: object) -> AsyncIterator[InferenceRequestImage]:
        """Fetch a picture, and hold its place among the downloads as long as the block lasts.

        Args:
            address: as the task's data has it.
            task: id of the task.

        Raises:
            RequestError: if it cannot be read, or may not be.
        """
        if address[:5].lower() == "data:":
            yield InferenceRequestImage(type="base64", value=address)
            return
        url = self.locate(address, task)
        is_own = self._is_own(url)
        if not is_own and not self._service.settings.allow_urls:
            raise ImageRefusedError(f"{FIELD}: pictures of other servers are switched off here.")
        limits = await self._limits(with_token=is_own)
        async with self._service.images.downloaded(url, limits, FIELD) as picture:
            yield picture

    def locate(self, address: str, task: object) -> str:
        """Return the URL of a picture.

        Args:
            address: as the task's data has it.
            task: id of the task.

        Raises:
            ImageRefusedError: if it is on Label Studio's server, and nobody said where that is.
        """
        if address.lower().startswith(("http://", "https://")):
            return address
        if not self._base:
            raise ImageRefusedError(
                f"{FIELD} is {address[:100]!r}, on Label Studio's server. Start the service with "
                "--label-studio-url and --label-studio-key (or LABEL_STUDIO_URL and "
                "LABEL_STUDIO_API_KEY)."
            )
        if address.startswith(IN_CLOUDS):
            name = base64.urlsafe_b64encode(address.encode()).decode()
            return f"{self._base}/tasks/{quote(str(task), safe='')}/resolve/?fileuri={name}"
        if address.startswith("/"):
            prefix = urlsplit(self._base).path
            is_whole = bool(prefix) and address.startswith(f"{prefix}/")
            return f"{self._base}{address.removeprefix(prefix) if is_whole else address}"
        raise ImageRefusedError(
            f"{FIELD} is {address[:100]!r}, which is no URL. It starts with http://, https:// or /."
        )

    def _is_own(self, url: str) -> bool:
        if not self._origin or origin_of(url) != self._origin:
            return False
        path = unquote(urlsplit(url).path).removeprefix(urlsplit(self._base).path)
        return path.startswith(WITH_TOKEN) and ".." not in path.split("/")

    async def _limits(self, *, with_token: bool) -> FetchLimits:
        settings, trusted = self._service.settings, {}
        if with_token:
            trusted[self._origin] = await self._service.at_length(self._token.headers)
        return FetchLimits(
            max_bytes=settings.max_body_bytes,
            timeout_s=settings.url_timeout_s,
            allow_private=settings.allow_private_urls,
            trusted=trusted,
        )


def _checked_origin(base: str) -> str:
    try:
        return origin_of(base)
    except ImageRefusedError as error:
        raise ImageRefusedError(f"label_studio_url, {base!r}: {error}") from error


class _Token:
    """The access token of Label Studio: a legacy one, or one that gets another for minutes."""

    def __init__(self, base: str, key: str, timeout_s: float) -> None:
        self._base = base
        self._key = key
        self._timeout_s = timeout_s
        self._access = ""
        self._until = 0.0

    def headers(self) -> dict[str, str]:
        """Return what goes with a request."""
        accepted = {"Accept": "*/*"}  # it has no picture for those who want image/*
        if not self._key:
            return accepted
        if self._key.count(".") != 2:  # not a JSON Web Token
            return {**accepted, "Authorization": f"Token {self._key}"}
        if time.monotonic() >= self._until:
            self._access, self._until = self._refreshed(), time.monotonic() + ACCESS_S
        return {**accepted, "Authorization": f"Bearer {self._access}"}

    def _refreshed(self) -> str:
        url = f"{self._base}/api/token/refresh"
        try:
            answer = requests.post(
                url, json={"refresh": self._key}, timeout=self._timeout_s, allow_redirects=False
            )
            answer.raise_for_status()
            return str(answer.json()["access"])
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            raise UnansweredError(
                f"Label Studio does not take the access token: {error}. See --label-studio-key."
            ) from error
