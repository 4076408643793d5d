"""One lane a model: its requests are gathered, and run one batch at a time on its device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from sam2_blocks.executors import Executor, MaskProposer, Remembering
from sam2_blocks.options import AutomaticSettings, SegmentOptions
from sam2_blocks.service.batching import Batcher
from sam2_blocks.service.errors import RequestError, TooLargeError, UnknownImageError
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.service.threads import Workers, to_the_end
from sam2_blocks.strategies.automatic import point_batches
from sam2_blocks.strategies.groups import map_groups
from sam2_blocks.values import AutomaticMasks, Embedding, Image, MaskPrediction, PromptSet

Stage = Literal["encode", "decode"]
Result = TypeVar("Result")
BatchObserver = Callable[[Stage, int], None]


class DecodeJob(NamedTuple):
    """The prompts of one request."""

    embedding: Embedding
    prompts: PromptSet
    options: SegmentOptions
    candidates: bool = False


class Lane:
    """Gathers the requests for one executor.

    Args:
        executor: the model.
        settings: window and batch size.
        observe: called with the stage and the size of every batch.
    """

    def __init__(
        self, executor: Executor, settings: ServiceSettings, observe: BatchObserver
    ) -> None:
        self.executor = executor
        self._thread = Workers(1, f"sam2-blocks-device-{executor.spec.model}")
        window_s, most = settings.window_ms / 1000, settings.max_batch
        # One image keeps a CPU busy: a batch takes as long or longer, and its first image waits.
        most_images = 1 if executor.spec.device == "cpu" else most
        self._encoder: Batcher[Image, Embedding] = Batcher(
            executor.embed,
            self._thread,
            window_s=window_s,
            max_items=most_images,
            observe=lambda size: observe("encode", size),
        )
        self._decoder: Batcher[DecodeJob, MaskPrediction] = Batcher(
            self._decode,
            self._thread,
            window_s=window_s,
            max_items=most,
            observe=lambda size: observe("decode", size),
        )

    async def embed(self, image: Image) -> Embedding:
        """Encode an image, together with those of other requests."""
        return await self._encoder.submit(image)

    async def segment(self, job: DecodeJob) -> MaskPrediction:
        """Decode prompts, together with those of other requests."""
        return await self._decoder.submit(job)

    async def propose_masks(
        self,
        embedding: Embedding,
        settings: AutomaticSettings,
        *,
        return_logits: bool,
        max_bytes: int,
    ) -> list[AutomaticMasks]:
        """Find masks without prompts, in batches between which other requests have their turn.

        Args:
            embedding: the image.
            settings: grid and filters.
            return_logits: keep the low-resolution logits too.
            max_bytes: how many bytes of them.

        Returns:
            One value a batch of points, for `join_masks`.

        Raises:
            RequestError: if the model cannot.
            TooLargeError: if the logits take more bytes than that.
        """
        if not isinstance(self.executor, MaskProposer):
            model = self.executor.spec.model
            raise RequestError(f"automatic_masks: the model {model!r} needs prompts. Give some.")
        loop = asyncio.get_running_loop()
        propose = partial(self.executor.propose_masks, return_logits=return_logits)
        batches: list[AutomaticMasks] = []
        nbytes = 0
        for points_xy in point_batches(settings.points_per_side, embedding.image_hw):
            found = await loop.run_in_executor(
                self._thread, propose, embedding, points_xy, settings
            )
            nbytes += found.prediction.low_res_logits.nbytes
            if nbytes > max_bytes:
                raise TooLargeError(
                    f"the logits of automatic masks take more than {max_bytes} bytes. Use format "
                    "'rle', or fewer points."
                )
            batches.append(found)
        return batches

    async def run(self, function: Callable[[], Result]) -> Result:
        """Run a function in the thread of the model, for work that concerns one request alone.

        It runs to its end even if whoever waits is cancelled, and this returns only then.
        """
        return await to_the_end(self._thread, function)

    def find(self, key: str | None) -> Embedding | None:
        """Return an embedding made before, if it is still kept, be it on disk."""
        if key is None or not isinstance(self.executor, Remembering):
            return None
        return self.executor.find(key)

    def recall(self, key: str, name: str) -> Embedding:
        """Return an embedding made before.

        Args:
            key: its content key.
            name: the ``image_id`` that a client asked for, for the message.

        Raises:
            UnknownImageError: if it is not kept, or not any more.
        """
        found = self.find(key)
        if found is None:
            raise UnknownImageError(
                f"image_id {name!r} is known, but its embedding is not kept any more. "
                "Send the image again."
            )
        return found

    @property
    def workers(self) -> Workers:
        """The thread in which its model runs."""
        return self._thread

    def close(self) -> None:
        """Wait for the batch that runs, and run no other."""
        self._thread.shutdown(cancel_futures=True)

    def _decode(self, jobs: Sequence[DecodeJob]) -> list[MaskPrediction]:
        def segment(
            asked: tuple[SegmentOptions, bool], same: Sequence[DecodeJob]
        ) -> list[MaskPrediction]:
            options, candidates = asked
            items = [(job.embedding, job.prompts) for job in same]
            return self.executor.segment(items, **options.keywords(), return_candidates=candidates)

        return map_groups(jobs, lambda job: (job.options, job.candidates), segment)
