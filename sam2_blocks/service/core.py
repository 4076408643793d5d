"""The way of one request: image, embedding, prompts, masks, answer.

A `Service` lives in one event loop. Work on the device is gathered into batches (`lanes`), pictures
are decoded in processes, and other work runs in threads: what takes moments apart from what may
take long, which ends when nobody waits for it any more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import numpy as np

from sam2_blocks.masks.rle import spread_prediction
from sam2_blocks.options import AutomaticSettings, SegmentOptions
from sam2_blocks.prompts import NO_PROMPT, LookedAt, look_at_prompts
from sam2_blocks.requests import (
    InferenceRequestImage,
    Sam2EmbeddingRequest,
    Sam2InferenceRequest,
    Sam2Prompt,
    Sam2SegmentationRequest,
)
from sam2_blocks.responses import Sam2EmbeddingResponse, Sam2SegmentationResponse
from sam2_blocks.service.admission import Caller, Queue, Strangers, Ticket
from sam2_blocks.service.answers import (
    ToRows,
    embedding_to_npz,
    indices_asked,
    keep_confident,
    npz_bytes,
    to_npz,
    to_polygon_rows,
    to_rle_rows,
    with_candidates,
    with_skipped,
)
from sam2_blocks.service.errors import RequestError, ShuttingDownError, TooLargeError
from sam2_blocks.service.lanes import BatchObserver, DecodeJob, Lane
from sam2_blocks.service.logits import LogitsCache
from sam2_blocks.service.models import ServedModels
from sam2_blocks.service.names import ImageNames, pixel_digest
from sam2_blocks.service.opening import ImageOpener
from sam2_blocks.service.room import Room
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.service.threads import Workers, in_thread, while_wanted
from sam2_blocks.strategies.automatic import join_masks
from sam2_blocks.values import Embedding, Hw, MaskPrediction, PromptSet

# What the public server sends to the model when there is no prompt.
PADDING = PromptSet((NO_PROMPT,))

STRANGERS = 16
NOBODY = Caller()

Result = TypeVar("Result")


class _Made(NamedTuple):
    """What was made of a request.

    Attributes:
        prediction: a mask for each prompt that was not skipped.
        skipped: why the others were, by index.
        hints: for who sent it.
    """

    prediction: MaskPrediction
    skipped: Mapping[int, str] = MappingProxyType({})
    hints: Sequence[str] = ()

    def whole(self) -> MaskPrediction:
        """A mask for each prompt, empty where it was skipped."""
        count = len(self.prediction.rles) + len(self.skipped)
        asked = indices_asked(self.prediction, self.skipped)
        return spread_prediction(self.prediction, asked, count)


class Service:
    """Answers the requests of the ``Sam2*`` contract.

    Args:
        models: what it answers with.
        settings: limits and switches.
        observe: called with ``encode`` or ``decode`` and the size of every batch.

    Attributes:
        images: opens the images of requests, and lets only so many be open.
        strangers: where requests are read that have not shown their key yet.
    """

    def __init__(
        self,
        models: ServedModels,
        settings: ServiceSettings | None = None,
        *,
        observe: BatchObserver | None = None,
    ) -> None:
        self.models = models
        self.settings = settings = settings or ServiceSettings()
        self._lanes = {
            executor.spec: Lane(executor, settings, observe or _ignore)
            for executor in models.executors
        }
        self._names = ImageNames(settings.on_conflict)
        self._logits = LogitsCache(settings.logits_entries)
        count = min(8, os.cpu_count() or 1)
        self._moments = Workers(count, "sam2-blocks-moments")
        self._long = Workers(count, "sam2-blocks-long")
        self.images = ImageOpener(settings, self._moments)
        self.strangers = Strangers(STRANGERS, 2 * settings.max_body_bytes)
        self._queue = Queue(settings.max_queue, settings.max_queue_bytes)
        self._answers = Room(settings.max_answer_bytes)
        self._draining = False

    # --- coming and going ---------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests being answered or waiting."""
        return len(self._queue)

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the service shuts down."""
        return self._draining

    def drain(self) -> None:
        """Take no new requests; those that are here are finished."""
        self._draining = True

    def stalled(self) -> dict[str, float]:
        """Tell which threads have taken up nothing new for longer than a request may take.

        Returns:
            The seconds since, by the name of the threads; nothing while all is well.
        """
        lanes = [lane.workers for lane in self._lanes.values()]
        seconds = {
            workers.name: workers.stalled_s()
            for workers in (self._moments, self._long, *self.images.workers, *lanes)
        }
        return {name: s for name, s in seconds.items() if s > self.settings.deadline_s}

    def close(self) -> None:
        """Let go of the threads, once nothing is in flight any more."""
        self.drain()
        self.images.close()
        for lane in self._lanes.values():
            lane.close()
        self._moments.shutdown(cancel_futures=True)
        self._long.shutdown(cancel_futures=True)

    @contextmanager
    def admitted(self) -> Iterator[Ticket]:
        """Hold a place in the queue; taken before a request is read.

        Raises:
            BusyError: if there is none.
            ShuttingDownError: if the service takes nothing new.
        """
        self.check_open()
        with self._queue.admitted() as ticket:
            yield ticket

    def check_open(self) -> None:
        """Go on only if new requests are taken.

        Raises:
            ShuttingDownError: if they are not.
        """
        if self._draining:
            raise ShuttingDownError("the service is shutting down. Try another one.")

    # --- the two requests ---------------------------------------------------------------------

    async def embed(
        self, request: Sam2EmbeddingRequest, caller: Caller = NOBODY
    ) -> Sam2EmbeddingResponse | bytes:
        """Embed an image and keep the result under its name.

        Args:
            request: the request.
            caller: whose names count.

        Returns:
            The response; for format ``binary`` the tensors, see `embedding_to_npz`.

        Raises:
            RequestError: if the request cannot be answered.
        """
        started = time.perf_counter()
        embedding, name = await self._embedding(
            request, request.image, request.image_id, caller.client
        )
        if request.format == "binary":
            return await self.in_thread(lambda: embedding_to_npz(embedding))
        return Sam2EmbeddingResponse(
            inference_id=request.id, image_id=name, time=time.perf_counter() - started
        )

    async def segment(
        self, request: Sam2SegmentationRequest, caller: Caller | None = None
    ) -> Sam2SegmentationResponse | bytes:
        """Segment an image: one mask for each prompt, in order, or the masks of everything.

        Args:
            request: the request.
            caller: whose names count, and who holds the room that a large answer takes.

        Returns:
            The response; for format ``binary`` the logits, see `to_npz`.

        Raises:
            RequestError: if the request cannot be answered.
        """
        started = time.perf_counter()
        self.check_prompts(request.prompts.prompts or [])
        if caller is None:
            async with AsyncExitStack() as held:
                return await self.segment(request, Caller(held=held))
        embedding, _ = await self._embedding(
            request, request.image, request.image_id, caller.client
        )
        if request.automatic_masks is not None:
            settings = request.automatic_masks.to_settings(
                multimask_output=request.multimask_output
            )
            made = _Made(await self._find_everything(embedding, settings, request.format))
        else:
            made = await self._predict(request, embedding, caller.client)
        if request.format == "binary":
            nbytes = npz_bytes(made.whole(), max_bytes=self.settings.max_answer_bytes)
            await caller.held.enter_async_context(self._answers.held(nbytes))
        return await self.at_length(lambda: self._answer(request, made, started))

    def check_prompts(self, prompts: Sequence[Sam2Prompt]) -> None:
        """Go on only if there are not too many prompts, or too many points in one.

        Raises:
            TooLargeError: if there are.
        """
        limits = self.settings
        if len(prompts) > limits.max_prompts:
            raise TooLargeError(
                f"prompts: there are {len(prompts)}, the limit is {limits.max_prompts}."
            )
        most = max((prompt.num_points() for prompt in prompts), default=0)
        if most > limits.max_points:
            raise TooLargeError(
                f"prompts: one has {most} points, the limit is {limits.max_points}."
            )

    async def _predict(
        self, request: Sam2SegmentationRequest, embedding: Embedding, client: str
    ) -> _Made:
        looked = _look_at_prompts(request, embedding.image_hw)
        hints = [*looked.hints, *_said_of(looked.bad)]
        prompts: PromptSet = looked.good
        if looked.bad and not prompts:
            return _Made(_nothing(embedding.image_hw), looked.bad, hints)
        if request.load_logits_from_cache:
            given = prompts
            prompts = await self.at_length(
                lambda: self._logits.load(embedding, given, client=client)
            )
        job = DecodeJob(
            embedding,
            prompts or PADDING,
            SegmentOptions(multimask_output=request.multimask_output),
            candidates=bool(request.candidates),
        )
        prediction = await self._lanes[embedding.spec].segment(job)
        if request.save_logits_to_cache and prompts:
            await self.in_thread(
                lambda: self._logits.save(embedding, prompts, prediction, client=client)
            )
        return _Made(prediction, looked.bad, hints)

    async def _find_everything(
        self, embedding: Embedding, settings: AutomaticSettings, answer_format: str
    ) -> MaskPrediction:
        batches = await self._lanes[embedding.spec].propose_masks(
            embedding,
            settings,
            return_logits=answer_format == "binary",
            max_bytes=self.settings.max_answer_bytes,
        )
        found = await self.at_length(lambda: join_masks(batches, settings))
        return found.prediction

    def _answer(
        self, request: Sam2SegmentationRequest, made: _Made, started: float
    ) -> Sam2SegmentationResponse | bytes:
        least = request.min_confidence
        if request.format == "binary":
            kept = keep_confident(made.whole(), least)
            return to_npz(kept, max_bytes=self.settings.max_answer_bytes)
        to_rows = _form_of(request)
        rows = to_rows(keep_confident(made.prediction, least))
        if request.candidates:
            rows = with_candidates(rows, made.prediction, to_rows, least)
        rows = with_skipped(rows, made.prediction, made.skipped, to_rows, least)
        return Sam2SegmentationResponse(
            inference_id=request.id,
            predictions=rows,
            time=time.perf_counter() - started,
            unprompted=True if _is_unprompted(request) else None,
            warnings=list(made.hints) or None,
        )

    def lane_of(self, request: Sam2InferenceRequest) -> Lane:
        """Find where the model of a request is used.

        Raises:
            UnknownModelError: if it is not served.
        """
        return self._lanes[self.models.of_request(request).spec]

    # --- their images -------------------------------------------------------------------------

    async def _embedding(
        self,
        request: Sam2InferenceRequest,
        given: InferenceRequestImage | None,
        image_id: str | None,
        client: str,
    ) -> tuple[Embedding, str]:
        """Return the embedding of a request's image and the name it is kept under."""
        lane = self.lane_of(request)
        if given is None:
            name = str(image_id)  # the request was checked to have one of the two
            key = self._names.key(name, lane.executor.spec, client=client)
            found = await self.in_thread(lambda: lane.recall(key, name))
            hw = self._names.image_hw(name, client=client)
            return replace(found, image_hw=hw or found.image_hw), name  # a file may say any size
        async with self.images.opened({"image": given}) as opened:
            image = opened["image"]
            digest = await self.in_thread(lambda: pixel_digest(image))
            name = image_id or digest
            self._names.claim(name, digest, client=client)
            known_as = self._names.find(name, lane.executor.spec, client=client)
            known = await self.in_thread(lambda: lane.find(known_as))
            found = known or await lane.embed(image)
            embedding = replace(found, image_hw=image.hw)
        self._names.remember(name, digest, embedding, client=client)
        return embedding, name

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """Run what takes moments beside the event loop."""
        return await in_thread(self._moments, function)

    async def at_length(self, function: Callable[[], Result]) -> Result:
        """Run what may take long beside the event loop; it ends when nobody waits any more."""
        return await while_wanted(self._long, function)


def _look_at_prompts(request: Sam2SegmentationRequest, image_hw: Hw) -> LookedAt:
    looked = look_at_prompts(request.prompts.to_unchecked(), image_hw)
    if looked.bad and request.on_bad_prompt != "skip":
        reason = next(iter(looked.bad.values()))
        raise RequestError(f"prompts: {reason}{'' if reason.endswith('?') else '.'}")
    return looked


def _said_of(bad: Mapping[int, str]) -> list[str]:
    """One line for all prompts that were skipped."""
    first = next(iter(bad.values()), "")
    return [f"{len(bad)} prompts were skipped and have an empty mask: {first}"] if bad else []


def _nothing(image_hw: Hw) -> MaskPrediction:
    """No masks, in the form of a model's."""
    logits = np.zeros((0, 256, 256), np.float32)
    boxes = np.zeros((0, 4), np.int64)
    return MaskPrediction(image_hw, (), np.zeros(0, np.float32), logits, boxes)


def _form_of(request: Sam2SegmentationRequest) -> ToRows:
    """How masks are written for this request."""
    if request.format == "rle":
        return to_rle_rows
    tolerance_px, form = request.tolerance or 0.0, request.polygon_form or "centers"
    return lambda prediction: to_polygon_rows(prediction, tolerance_px, form)


def _is_unprompted(request: Sam2SegmentationRequest) -> bool:
    """Whether nothing says what to segment: an empty list of points says nothing."""
    prompts = request.prompts.prompts or []
    said = any(prompt.box is not None or prompt.points for prompt in prompts)
    return not (said or request.automatic_masks)


def _ignore(stage: str, size: int) -> None:
    return
