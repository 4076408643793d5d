"""The executor: one loaded model, from pictures and prompts to mask predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from sam2_blocks.clock import stage
from sam2_blocks.errors import ImageError, ModelError
from sam2_blocks.executor.cache.files import EmbeddingFiles
from sam2_blocks.executor.cache.lru import (
    DEFAULT_CACHE_ENTRIES,
    DEFAULT_DISK_CACHE_BYTES,
    CacheStats,
)
from sam2_blocks.executor.cache.tiers import EmbeddingCache
from sam2_blocks.executor.device.chunks import map_chunks
from sam2_blocks.executor.device.fair_lock import FairLock
from sam2_blocks.executor.device.found import memory_of, nbytes_of
from sam2_blocks.executor.device.workers import Workers
from sam2_blocks.executor.sam2.ahead import (
    MOST_PICTURES,
    FramesAhead,
    PicturesAhead,
    frames_ahead,
)
from sam2_blocks.executor.sam2.answer import SegmentedPrompt, gather_prediction, segment_chunk
from sam2_blocks.executor.sam2.decode import Decoder
from sam2_blocks.executor.sam2.encode import (
    batch_size,
    embed_ahead,
    embed_images,
    embedding_keys,
    embedding_shapes,
    encodes_ahead,
)
from sam2_blocks.executor.sam2.follow import Follower
from sam2_blocks.executor.sam2.frames import embed_frame, frame_key, unnamed_key
from sam2_blocks.executor.sam2.memory import memory_bounds
from sam2_blocks.executor.sam2.model import LoadedModel, Mode
from sam2_blocks.executor.sam2.propose import gather_proposals, propose_chunk
from sam2_blocks.executor.sam2.rows import PromptRow, prompts_to_rows
from sam2_blocks.executor.sam2.session import Sam2TrackSession
from sam2_blocks.forks import after_fork
from sam2_blocks.formats.images import check_image
from sam2_blocks.heap import keep_at_hand
from sam2_blocks.options import AutomaticSettings, SegmentOptions, TrackSettings
from sam2_blocks.prompts import check_prompts, to_prompt_set
from sam2_blocks.strategies.groups import map_groups
from sam2_blocks.values import (
    AutomaticMasks,
    Embedding,
    ExecutorSpec,
    Float32Array,
    Image,
    MaskPrediction,
    PromptSet,
)

Result = TypeVar("Result")

# By default; elsewhere the memory of the device is the host's.
HOST_CACHE_BYTES = {"cuda": 2 * 2**30}
DEFAULT_TRACKING = TrackSettings()


class Sam2Executor:
    """Embeds and segments with one model; implements `sam2_blocks.executors.Executor`.

    Stateless for its callers: embeddings are values, and the cache only saves time. Threads may
    share it; work on the device is done by one at a time.

    Args:
        model: the network, as `load_model` returns it.
        cache_bytes: embeddings kept on the device, in bytes. What the decoder derives from them is
            kept beside, in as many bytes at most and never more than 256 MiB (1 GiB on CUDA).
        cache_entries: embeddings kept on the device.
        host_cache_bytes: embeddings kept in host memory, in bytes; see `load`.
        cache_dir: folder of embeddings kept on disk, if any.
        disk_cache_bytes: bound of that folder.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        cache_bytes: int,
        cache_entries: int = DEFAULT_CACHE_ENTRIES,
        host_cache_bytes: int | None = None,
        cache_dir: Path | None = None,
        disk_cache_bytes: int = DEFAULT_DISK_CACHE_BYTES,
    ) -> None:
        if host_cache_bytes is None:
            host_cache_bytes = HOST_CACHE_BYTES.get(model.device.type, 0) if cache_bytes else 0
        self._model = model
        self._decoder = Decoder(model, cache_bytes=cache_bytes)
        self._cache = EmbeddingCache(
            model.device,
            device_bytes=cache_bytes,
            device_entries=cache_entries,
            host_bytes=host_cache_bytes,
            files=_open_files(model, cache_dir, disk_cache_bytes) if cache_dir else None,
        )
        self._device_lock = FairLock()
        self._forked = False
        after_fork(self._notice_fork)
        self._workers = Workers() if model.device.type == "cpu" else None
        self._follower = Follower(model, self._decoder, self._workers)
        encode = partial(embed_ahead, model, known=self._cache.holds)
        self._ahead = PicturesAhead(encode, MOST_PICTURES)

    def _notice_fork(self) -> None:
        self._forked = self._model.device.type != "cpu"

    def _refuse_fork(self) -> None:
        """Say at once what the driver of a device would say later, or not at all.

        Raises:
            ModelError: if this is a forked child and the model is on a device.
        """
        if self._forked:
            raise ModelError(
                f"model {self.spec.model!r} was loaded on {self.spec.device!r} before this process "
                "was forked, and a device cannot be used in a forked child. Load the model in the "
                "child, or start it with multiprocessing's method 'spawn'."
            )

    @property
    def spec(self) -> ExecutorSpec:
        """Resolved model, device and dtype."""
        return self._model.spec

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return nbytes_of(self._model.network)

    @property
    def device_nbytes(self) -> int | None:
        """Bytes of its device's memory; None if that does not say."""
        return memory_of(self._model.spec.device)

    @property
    def mode(self) -> Mode:
        """``strict`` (float32, the masks of the official predictor) or ``fast``."""
        return self._model.mode

    @property
    def model(self) -> LoadedModel:
        """The network this executor runs."""
        return self._model

    def cache_stats(self) -> CacheStats:
        """Return what the cache of embeddings has done so far."""
        return self._cache.stats()

    def decoder_cache_stats(self) -> CacheStats:
        """Return what the decoder keeps of pictures beside their embeddings."""
        return self._decoder.cache_stats()

    def find(self, key: str) -> Embedding | None:
        """Return the embedding with this content key if the cache still holds it."""
        return self._cache.find(key)

    def forget_unused(self) -> None:
        """Drop from memory what is kept of pictures that nobody asked for since the last call."""
        self._cache.forget_unused()
        self._decoder.forget_unused()
        self._ahead.forget_unused()

    def flush_cache(self) -> None:
        """Wait until every embedding made so far is on disk, where that was asked for."""
        self._cache.flush()

    def warm_up(self) -> None:
        """Pay one-time costs now: kernels, self-checks and allocations."""
        size = self._model.image_size
        image = Image(np.zeros((size, size, 3), np.uint8), id="warm-up")
        with self._device_lock:
            embeddings = embed_images(self._model, [image], embedding_keys([image], self._model))
        self.segment([(embeddings[0], PromptSet.from_boxes([[1, 1, size - 1, size - 1]]))])

    @stage("embed")
    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """Encode pictures of any sizes, in batches that fit the device.

        A picture that was embedded before, and is still in the cache, costs only its hash.

        Args:
            images: uint8 RGB pictures.

        Raises:
            ImageError: if a picture is not uint8 RGB (H, W, 3).
            ModelError: if the device has no memory for a single picture.
        """
        self._refuse_fork()
        if isinstance(images, Image | np.ndarray):
            raise ImageError("wants a list of pictures, got one. Give embed([image]).")
        for image in images:
            check_image(image)
        alone = len(images) == 1
        ahead = list(map(self._ahead.take, images))
        keys = self._keys(images, ahead)
        by_key = dict(zip(keys, images, strict=True))
        # Alone, its sums are rounded in another way, whether or not it was announced in time.
        made = {one.key: one for one in ahead if one is not None and not alone}

        def compute(missing: Sequence[str]) -> list[Embedding]:
            left = [key for key in missing if key not in made]
            with self._device_lock:
                pictures = [by_key[key] for key in left]
                found = embed_images(self._model, pictures, left, self._workers, alone=alone)
            made.update(zip(left, found, strict=True))
            return [made[key] for key in missing]

        embeddings = self._cache.get_many(keys, compute)
        return list(map(_of_picture, embeddings, images))

    def _keys(self, images: Sequence[Image], ahead: Sequence[Embedding | None]) -> list[str]:
        """Name the contents of pictures; those that were encoded ahead have been hashed."""
        unnamed = [image for image, one in zip(images, ahead, strict=True) if one is None]
        named = iter(embedding_keys(unnamed, self._model))
        return [next(named) if one is None else one.key for one in ahead]

    def expect(self, image: Image) -> None:
        """Begin to encode a picture that `embed` is given soon, where cores are left over for it.

        That is on a CPU of a few cores and with a small network; else it does nothing. See
        `sam2_blocks.executors.ExpectsPictures`.
        """
        workers = self._workers
        if workers is not None and encodes_ahead(self._model, workers.count):
            self._ahead.expect(image)

    @stage("segment")
    def segment(
        self,
        items: Sequence[tuple[Embedding, PromptSet]],
        *,
        multimask_output: bool = True,
        mask_threshold: float = 0.0,
        max_hole_area: int = 0,
        max_sprinkle_area: int = 0,
        return_candidates: bool = False,
    ) -> list[MaskPrediction]:
        """Decode the prompts of several images together.

        Args:
            items: embeddings of this executor, each with any number of prompts of any mixture, or
                with what `to_prompt_set` makes prompts of, such as detections.
            multimask_output: see `SegmentOptions`, like the next three.
            mask_threshold: of logits.
            max_hole_area: low-resolution pixels.
            max_sprinkle_area: low-resolution pixels.
            return_candidates: also return every proposal.

        Returns:
            One prediction an item, with one mask a prompt, in order.

        Raises:
            TypeError: if an item is no embedding with prompts.
            ValueError: if an embedding is of another executor, a prompt means nothing in its
                picture (see `check_prompts`, except that boxes may reach outside), or an option is
                out of its range.
            ModelError: if the device has no memory for a single prompt.
        """
        options = SegmentOptions(
            multimask_output, mask_threshold, max_hole_area, max_sprinkle_area
        ).checked()
        asked = [self._checked(place, item) for place, item in enumerate(items)]
        rows = prompts_to_rows(
            asked, image_size=self._model.image_size, low_res_hw=self._model.low_res_hw
        )

        def segment(_: object, same: Sequence[PromptRow]) -> list[SegmentedPrompt]:
            decode = partial(
                segment_chunk, self._decoder, options=options, return_candidates=return_candidates
            )
            return self._map_rows(decode, same)

        with self._device_lock:
            answers = iter(map_groups(rows, lambda row: row.shape_key, segment))
            self._decoder.forget()
        return [
            gather_prediction(
                list(islice(answers, len(prompts))),
                embedding.image_hw,
                self._model.low_res_hw,
                options,
                return_candidates=return_candidates,
            )
            for embedding, prompts in asked
        ]

    @stage("segment")
    def propose_masks(
        self,
        embedding: Embedding,
        points_xy: Float32Array,
        settings: AutomaticSettings,
        *,
        return_logits: bool = False,
    ) -> AutomaticMasks:
        """Decode clicks and keep every mask that passes the filters; see `MaskProposer`.

        Raises:
            ValueError: if the embedding is of another executor.
            ModelError: if the device has no memory for a single click.
        """
        self._check_embedding(embedding)
        rows = prompts_to_rows(
            [(embedding, PromptSet.from_points(points_xy))],
            image_size=self._model.image_size,
            low_res_hw=self._model.low_res_hw,
        )
        with self._device_lock:
            proposals = self._map_rows(
                lambda chunk: propose_chunk(
                    self._decoder, chunk, settings, return_logits=return_logits
                ),
                rows,
            )
            self._decoder.forget()
        low_res_hw = self._model.low_res_hw if return_logits else (0, 0)
        return gather_proposals(proposals, points_xy, embedding.image_hw, low_res_hw)

    def track(
        self, settings: TrackSettings = DEFAULT_TRACKING, *, cache_frames: bool = False
    ) -> Sam2TrackSession:
        """Begin to follow objects through a video; see `sam2_blocks.executors.Tracker`.

        Args:
            settings: how much to remember, and how to read the masks.
            cache_frames: keep the embeddings of frames in the cache, where pictures are too. For a
                clip that is gone through again; a stream would only push out what is kept there.

        Raises:
            ModelError: if the memory of this model works in another way, or its weights have none.
            ValueError: if the settings ask for more memory than it was trained with.
        """
        self._refuse_fork()
        if self._model.images_only:
            raise ModelError(
                f"the weights of {self.spec.model!r} are those of a Sam2Model, for pictures alone: "
                "what follows objects through a video is missing. Save a Sam2VideoModel instead, "
                "or use another model."
            )
        bounds = memory_bounds(
            self._model.network, settings.max_prompt_frames, settings.memory_frames
        )
        return Sam2TrackSession(
            self._follower,
            self._embed_cached_frame if cache_frames else self._embed_frame,
            bounds=bounds,
            settings=settings,
            device_lock=self._device_lock,
            ahead=self._frames_ahead(cached=cache_frames),
        )

    def _frames_ahead(self, *, cached: bool) -> FramesAhead:
        """Encode frames that are announced on cores of their own, where there are some."""
        model, workers = self._model, self._workers
        most = 0
        if workers is not None and model.compile == "off" and not cached:
            keep_at_hand()
            most = frames_ahead(workers.count, batch_size(model))

        def prepare() -> Callable[[Image], Embedding]:
            encoder = model.split_frame_encoder(most)
            return partial(embed_frame, model, key=unnamed_key(model), encoder=encoder)

        return FramesAhead(prepare, workers, most)

    def _embed_frame(self, image: Image) -> Embedding:
        with self._device_lock:
            return embed_frame(self._model, image, key=unnamed_key(self._model))

    def _embed_cached_frame(self, image: Image) -> Embedding:
        def compute(keys: Sequence[str]) -> list[Embedding]:
            with self._device_lock:
                return [embed_frame(self._model, image, key=keys[0])]

        [found] = self._cache.get_many([frame_key(image, self._model)], compute)
        return _of_picture(found, image)

    def _map_rows(
        self, function: Callable[[Sequence[PromptRow]], list[Result]], rows: Sequence[PromptRow]
    ) -> list[Result]:
        """Apply a function to chunks of rows of one shape, one result a row."""
        if self._workers is not None and len(rows) > 1:
            sizes = self._decoder.chunk_sizes(len(rows), self._workers.count)
            return self._workers.map_chunks(function, rows, sizes)
        return map_chunks(function, rows, self._decoder.chunk_size)

    def _checked(
        self, place: int, item: tuple[Embedding, PromptSet]
    ) -> tuple[Embedding, PromptSet]:
        """Check one item of `segment` and make prompts of what stands for them."""
        embedding, given = _pair_of(place, item)
        self._check_embedding(embedding)
        try:
            prompts = to_prompt_set(given)
            check_prompts(prompts, embedding.image_hw, warn=False)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"image {embedding.image_id!r}: {error}") from None
        return embedding, prompts

    def _check_embedding(self, embedding: Embedding) -> None:
        self._refuse_fork()
        made_by = embedding.key.rpartition("/")[0]
        if embedding.spec != self.spec or made_by != self._model.key:
            raise ValueError(
                f"the embedding of image {embedding.image_id!r} was made by {made_by!r} on "
                f"{embedding.spec.device!r}, but this executor is {self._model.key!r} on "
                f"{self.spec.device!r}. Embed the image with this executor."
            )


def _of_picture(embedding: Embedding, image: Image) -> Embedding:
    """The same as that of this picture: it may be of an equal one, and a file may say anything."""
    if (embedding.image_id, embedding.image_hw) == (image.id, image.hw):
        return embedding
    return replace(embedding, image_id=image.id, image_hw=image.hw)


def _pair_of(place: int, item: object) -> tuple[Embedding, object]:
    """Read an item of `Sam2Executor.segment`, which people also give pictures or single values."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        got = type(item).__name__
        raise TypeError(f"item {place}: wants a pair (embedding, prompts), got {got}")
    embedding, prompts = item
    if isinstance(embedding, Embedding):
        return embedding, prompts
    hint = " Encode it first: [embedding] = executor.embed([image])."
    raise TypeError(
        f"item {place}: wants an Embedding beside the prompts, got {type(embedding).__name__}."
        f"{hint if isinstance(embedding, Image | np.ndarray) else ''}"
    )


def _open_files(model: LoadedModel, folder: Path, max_bytes: int) -> EmbeddingFiles:
    """Open a folder of embeddings; machines that round in another way do not share them."""
    if model.device.type == "cuda":
        device = torch.cuda.get_device_name(model.device)
    else:
        device = f"{model.device.type} {torch.backends.cpu.get_cpu_capability()}"
    made_by = f"torch {torch.__version__} on {device}"
    return EmbeddingFiles(
        folder,
        max_bytes=max_bytes,
        spec=model.spec,
        made_by=made_by,
        shapes=embedding_shapes(model),
        dtype=str(model.dtype).removeprefix("torch."),
    )
