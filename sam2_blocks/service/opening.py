"""Opening the images of requests: how many at once, and what waits for what.

Downloads have threads of their own, and images take a place of ``max_open_images`` only once they
are downloaded, so that a slow server holds up nobody but those who download, too. Before they are
decoded, which is done in `decoders`, they take as many bytes as their pixels will.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from math import prod

from sam2_blocks.heap import give_back
from sam2_blocks.requests import InferenceRequestImage
from sam2_blocks.service.decoders import Decoders
from sam2_blocks.service.errors import TooLargeError
from sam2_blocks.service.fetch import FetchLimits, fetch
from sam2_blocks.service.images import ImageReader, naming
from sam2_blocks.service.room import Room
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.service.threads import Workers, in_thread
from sam2_blocks.values import Image

FETCHERS = 16
LARGE_BYTES = 16 * 2**20
"""Pictures of so many bytes leave holes in the heap."""
TIDY_AFTER_S = 0.5
"""By then whoever asked for them has let go of them."""

Given = Mapping[str, InferenceRequestImage]
"""Images by their field in the request, which messages name."""


class ImageOpener:
    """Fetches and decodes images; lives in one event loop.

    Args:
        settings: limits and switches.
        workers: threads for what takes moments.
    """

    def __init__(self, settings: ServiceSettings, workers: Workers) -> None:
        self._settings = settings
        self._reader = ImageReader(settings)
        self._workers = workers
        self._fetchers = ThreadPoolExecutor(FETCHERS, "sam2-blocks-fetch")
        self._decoders = Decoders(settings)
        # Who downloads holds his files until they are decoded; they shall not be too many bytes.
        at_once = max(1, settings.max_queue_bytes // settings.max_body_bytes)
        self._downloads = asyncio.Semaphore(min(FETCHERS, at_once))
        self._places = Room(settings.max_open_images)
        self._bytes = Room(settings.max_open_bytes)
        self._tidying: asyncio.TimerHandle | None = None

    @property
    def workers(self) -> tuple[Workers, ...]:
        """The threads that wait for decoders."""
        return self._decoders.workers

    def start(self) -> None:
        """Start what the first image would wait for."""
        self._decoders.start()

    def close(self) -> None:
        """Let go of threads and processes; a download that runs ends by itself."""
        if self._tidying is not None:
            self._tidying.cancel()
        self._decoders.close()
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def opened(self, given: Given) -> AsyncIterator[dict[str, Image]]:
        """Open all images of a request, and hold their places as long as the block lasts.

        Returns:
            Images by their field, which is also their name in messages.

        Raises:
            TooLargeError: if there are too many, or they have too many bytes.
            RequestError: if one cannot be read, or may not be.
        """
        most = self._settings.max_open_images
        if len(given) > most:
            raise TooLargeError(f"there are {len(given)} images, the limit is {most}.")
        async with AsyncExitStack() as held:
            async with self._fetched(given) as fetched:
                await held.enter_async_context(self._places.held(len(fetched)))
                images = await self._open(fetched, held)
            yield images

    @asynccontextmanager
    async def downloaded(
        self, url: str, limits: FetchLimits, field: str
    ) -> AsyncIterator[InferenceRequestImage]:
        """Download a file, as if it had been uploaded, and hold its place as long as the block.

        Args:
            url: http or https.
            limits: what it may cost, and where it may be.
            field: what messages call it.

        Raises:
            RequestError: if it may not be downloaded, or cannot.
        """
        async with self._downloads:
            with naming(field):
                content = await in_thread(self._fetchers, lambda: fetch(url, limits))
            yield InferenceRequestImage.model_construct(type="multipart", value=content)

    async def _open(self, given: Given, held: AsyncExitStack) -> dict[str, Image]:
        """Decode images, once there is room for all their pixels."""
        files = {field: await self._unpack(image, field) for field, image in given.items()}
        nbytes = sum([await self._measure(file, field) for field, file in files.items()])
        if nbytes > self._bytes.size:
            raise TooLargeError(
                f"{', '.join(files)[:200]}: the pixels take {nbytes} bytes, the limit is "
                f"{self._bytes.size}. Scale it down."
            )
        await held.enter_async_context(self._bytes.held(nbytes))
        if nbytes >= LARGE_BYTES:
            held.callback(self._tidy_soon)
        return {field: await self._decode(file, field) for field, file in files.items()}

    def _tidy_soon(self) -> None:
        """Give memory back to the system when pictures have been let go of, once for several."""
        if self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(TIDY_AFTER_S, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        self._workers.submit(give_back)

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

    async def _unpack(self, image: InferenceRequestImage, field: str) -> bytes | Image:
        return await in_thread(self._workers, lambda: self._reader.unpack(image, field))

    async def _measure(self, file: bytes | Image, field: str) -> int:
        """How many bytes its pixels take."""
        if isinstance(file, Image):
            return file.pixels.nbytes
        with naming(field):
            return 3 * prod(await self._decoders.measure(file))

    async def _decode(self, file: bytes | Image, field: str) -> Image:
        if isinstance(file, Image):
            return replace(file, id=field)
        with naming(field):
            return Image(await self._decoders.decode(file), field)
