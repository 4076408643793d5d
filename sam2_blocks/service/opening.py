"""Opening the images of requests: how many at once, and what waits for what.

Downloads have threads of their own, and images take a place of ``max_open_images`` only once they
are downloaded, so that a slow server holds up nobody but those who download, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from sam2_blocks.requests import InferenceRequestImage
from sam2_blocks.service.errors import TooLargeError
from sam2_blocks.service.images import ImageReader
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.service.threads import in_thread, to_the_end
from sam2_blocks.values import Image

FETCHERS = 16

Given = Mapping[str, InferenceRequestImage]
"""Images by their field in the request, which messages name."""


class ImageOpener:
    """Fetches and decodes images; lives in one event loop.

    Args:
        settings: limits and switches.
        workers: threads that decode.
    """

    def __init__(self, settings: ServiceSettings, workers: ThreadPoolExecutor) -> None:
        self._settings = settings
        self._reader = ImageReader(settings)
        self._workers = workers
        self._fetchers = ThreadPoolExecutor(FETCHERS, "sam2-blocks-fetch")
        self._downloads = asyncio.Semaphore(FETCHERS)
        self._places = asyncio.Semaphore(settings.max_open_images)
        self._taking_places = asyncio.Lock()

    def close(self) -> None:
        """Let go of the threads; a download that runs ends by itself."""
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def opened(self, given: Given) -> AsyncIterator[dict[str, Image]]:
        """Open all images of a request, and hold their places as long as the block lasts.

        Returns:
            Images by their field, which is also their name in messages.

        Raises:
            TooLargeError: if there are too many, or they have too many bytes to fetch.
            RequestError: if one cannot be read, or may not be.
        """
        most = self._settings.max_open_images
        if len(given) > most:
            raise TooLargeError(f"there are {len(given)} images, the limit is {most}.")
        async with AsyncExitStack() as held:
            # One takes places at a time: two that hold some and want more would never end.
            async with self._fetched(given) as fetched, self._taking_places:
                for _ in fetched:
                    await held.enter_async_context(self._places)
            yield {field: await self._decode(image, field) for field, image in fetched.items()}

    @asynccontextmanager
    async def _fetched(self, given: Given) -> AsyncIterator[Given]:
        """Download what is given by URL; few requests at a time may hold files that wait."""
        if all(image.type != "url" for image in given.values()):
            yield given
            return
        async with self._downloads:
            yield await self._fetch(given)

    async def _fetch(self, given: Given) -> Given:
        most = self._settings.max_body_bytes
        fetched, nbytes = dict(given), 0
        for field in (field for field, image in given.items() if image.type == "url"):
            fetched[field] = await self._fetch_one(given[field], field)
            nbytes += len(fetched[field].value)
            if nbytes > most:
                raise TooLargeError(f"{field}: the files have more than {most} bytes together.")
        return fetched

    async def _fetch_one(self, image: InferenceRequestImage, field: str) -> InferenceRequestImage:
        return await in_thread(self._fetchers, lambda: self._reader.fetch(image, field))

    async def _decode(self, image: InferenceRequestImage, field: str) -> Image:
        opened = await to_the_end(self._workers, lambda: self._reader.decode(image, field))
        return replace(opened, id=field)
