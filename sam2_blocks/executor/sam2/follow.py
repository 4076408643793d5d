"""One frame of a video: answers for many objects, grouped where they can be computed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sam2_blocks.executor.device.chunks import even_sizes, map_chunks
from sam2_blocks.executor.device.transfer import upload
from sam2_blocks.executor.device.workers import Workers
from sam2_blocks.executor.sam2.answer import LOGIT_LIMIT
from sam2_blocks.executor.sam2.decode import Decoder
from sam2_blocks.executor.sam2.heads import Heads, ObjectAnswers
from sam2_blocks.executor.sam2.memory import Memory, MemoryView, ObjectMemory
from sam2_blocks.executor.sam2.model import LoadedModel
from sam2_blocks.executor.sam2.rows import PromptRow, prompts_to_rows, rows_to_tensors
from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.values import Embedding, Prompt, PromptSet, Rle

Item = TypeVar("Item")
Result = TypeVar("Result")


class Follower:
    """Finds objects on frames with one model; holds no state of any video.

    Every method answers in the order of its items, one `ObjectAnswers` of one object an item.

    Args:
        model: the network.
        decoder: of its masks.
        workers: compute what is done ``apart``: objects on one core each, beside other work.
    """

    def __init__(
        self, model: LoadedModel, decoder: Decoder, workers: Workers | None = None
    ) -> None:
        self._model = model
        self._workers = workers
        self._memory = Memory(model)
        self._heads = Heads(model, decoder)
        self._chunk_size = decoder.chunk_size

    def start(
        self,
        frame: Embedding,
        prompts: Sequence[Prompt],
        earlier: Sequence[ObjectAnswers | None] | None = None,
    ) -> list[ObjectAnswers]:
        """Answer prompts about objects that are not followed yet, without any memory.

        Args:
            frame: its embedding.
            prompts: N, one an object.
            earlier: what was answered to earlier prompts of this frame, one each; their logits are
                the start of a prompt that has none.

        Returns:
            N answers, in order.
        """
        earlier = earlier or [None] * len(prompts)

        def answer(row: PromptRow) -> ObjectAnswers:
            # One by one: tokens of other prompts beside them would round some answers otherwise.
            points, masks = rows_to_tensors([row], self._model.device)
            masks = _earlier_logits(earlier[row.index]) if masks is None else masks
            return self._heads.start(frame, points, masks)

        return [answer(row) for row in self._rows(frame, prompts)]

    def follow(
        self,
        frame: Embedding,
        memories: Sequence[ObjectMemory],
        step: int,
        *,
        apart: bool = False,
    ) -> list[ObjectAnswers]:
        """Find objects on a frame by what is remembered of them.

        Args:
            frame: its embedding.
            memories: N, one an object.
            step: number of the frame.
            apart: leave all cores but one to frames that are encoded meanwhile.

        Returns:
            N answers, in order.
        """

        @torch.inference_mode()
        def answer(chunk: Sequence[MemoryView]) -> list[ObjectAnswers]:
            features = self._memory.read(frame.image_embed, chunk)
            return self._heads.follow(frame, features).split()

        views = [self._memory.view(memory, step) for memory in memories]
        return self._map_groups(answer, views, lambda view: view.shape_key, apart=apart)

    def correct(
        self,
        frame: Embedding,
        memory: ObjectMemory,
        step: int,
        *,
        prompt: Prompt,
        earlier: ObjectAnswers,
    ) -> ObjectAnswers:
        """Answer a prompt about an object that was followed to this frame.

        Args:
            frame: its embedding.
            memory: what is remembered of the object, without this frame.
            step: number of the frame.
            prompt: points or a box.
            earlier: what was answered on this frame before.
        """
        features = self._memory.read(frame.image_embed, [self._memory.view(memory, step)])
        points, masks = rows_to_tensors(self._rows(frame, [prompt]), self._model.device)
        masks = _earlier_logits(earlier) if masks is None else masks
        return self._heads.follow(frame, features, points, masks)

    def take(self, frame: Embedding, masks: Sequence[Rle]) -> list[ObjectAnswers]:
        """Take the masks of objects as they are, so that they can be remembered.

        Args:
            frame: its embedding.
            masks: N, of the size of the frame.

        Returns:
            N answers, in order, whose logits are far above or below the threshold.
        """

        def answer(chunk: Sequence[Rle]) -> list[ObjectAnswers]:
            squares = torch.cat([self._to_square(rle) for rle in chunk])
            return self._heads.take(frame, squares).split()

        return map_chunks(answer, masks, self._chunk_size)

    def remember(
        self,
        frame: Embedding,
        answers: Sequence[ObjectAnswers],
        *,
        prompted: bool,
        apart: bool = False,
    ) -> list[Tensor]:
        """Make a memory of each object.

        Args:
            frame: its embedding.
            answers: N, one an object.
            prompted: whether the objects were prompted on this frame.
            apart: as in `follow`.

        Returns:
            N maps (h/4 * w/4, D).
        """

        @torch.inference_mode()
        def write(chunk: Sequence[ObjectAnswers]) -> list[Tensor]:
            found = ObjectAnswers.cat(chunk)
            features = self._memory.write(
                frame.image_embed, found.logits, found.object_score, prompted=prompted
            )
            # A slice would keep the memories of all its neighbours alive.
            return [memory.clone(memory_format=torch.contiguous_format) for memory in features]

        return self._map(write, answers, apart=apart)

    def _rows(self, frame: Embedding, prompts: Sequence[Prompt]) -> list[PromptRow]:
        return prompts_to_rows(
            [(frame, PromptSet(tuple(prompts)))],
            image_size=self._model.image_size,
            low_res_hw=self._model.low_res_hw,
        )

    def _to_square(self, rle: Rle) -> Tensor:
        """Resize a mask to the encoder's square: float32, (1, 1, S, S), 0 or 1.

        Source: sam2 ``sam2_video_predictor.py: add_new_mask``.
        """
        side = self._model.image_size
        mask = upload(rle_to_mask(rle), self._model.device)[None, None].float()
        if rle.size != (side, side):
            mask = F.interpolate(mask, (side, side), mode="bilinear", antialias=True)
        return (mask >= 0.5).float()

    def _map_groups(
        self,
        function: Callable[[Sequence[Item]], list[Result]],
        items: Sequence[Item],
        key: Callable[[Item], Any],
        *,
        apart: bool,
    ) -> list[Result]:
        """Apply a function to chunks of items of one key; one result an item, in their order."""
        groups: dict[Any, list[int]] = {}
        for index, item in enumerate(items):
            groups.setdefault(key(item), []).append(index)
        results: dict[int, Result] = {}
        for indices in groups.values():
            chunk = [items[index] for index in indices]
            results.update(zip(indices, self._map(function, chunk, apart=apart), strict=True))
        return [results[index] for index in range(len(items))]

    def _map(
        self,
        function: Callable[[Sequence[Item]], list[Result]],
        items: Sequence[Item],
        *,
        apart: bool,
    ) -> list[Result]:
        """Apply a function to chunks of items, on all cores or on one each."""
        if not apart or self._workers is None:
            return map_chunks(function, items, self._chunk_size)
        sizes = even_sizes(len(items), self._chunk_size, self._workers.count)
        return self._workers.map_chunks(function, items, sizes)


def _earlier_logits(answer: ObjectAnswers | None) -> Tensor | None:
    """Make a prompt (1, 1, h, w) of what was answered before, if anything was."""
    return None if answer is None else answer.logits[:, None].clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
