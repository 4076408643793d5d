"""Detectors that read phrases: pictures and phrases in, objects out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sam2_blocks.errors import ModelError
from sam2_blocks.executor.transformers.network import Network
from sam2_blocks.executor.transformers.omdet import BEGINNING, MOST_TOKENS, OMDET
from sam2_blocks.found_objects import FoundObjects
from sam2_blocks.strategies.phrases import (
    AROUND,
    NO_PHRASE,
    Caption,
    check_length,
    name_boxes,
    plain_phrase,
    split_phrases,
)
from sam2_blocks.values import ExecutorSpec, Image, Int64Array

READ_AS_ONE_TEXT = ("grounding-dino", "mm-grounding-dino")
READ_ONE_BY_ONE = ("owlvit", "owlv2")
READ_BOTH_WAYS = (OMDET,)
KNOWN = (*READ_AS_ONE_TEXT, *READ_ONE_BY_ONE, *READ_BOTH_WAYS)


class TransformersGrounder:
    """A model behind ``AutoModelForZeroShotObjectDetection``.

    See `sam2_blocks.executors.TextPrompted`. Grounding DINO reads all phrases as one text of
    limited length, so many phrases take several passes; OWL reads each by itself; OmDet-Turbo reads
    each by itself and all of them in a sentence.

    Args:
        network: the network and its processor.

    Raises:
        ModelError: if it is a kind of model whose answers we cannot read.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        kind = network.config.model_type
        if kind not in KNOWN:
            raise ModelError(
                f"the model {network.spec.model!r} is a {kind!r}, whose answers we cannot read. "
                f"Known: {', '.join(KNOWN)}."
            )
        self._as_one_text = kind in READ_AS_ONE_TEXT
        self._in_a_sentence = kind in READ_BOTH_WAYS
        self._tokenizer = network.processor.tokenizer

    @property
    def spec(self) -> ExecutorSpec:
        """Resolved model, device and dtype."""
        return self._network.spec

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return self._network.nbytes

    def warm_up(self) -> None:
        """Pay one-time costs now."""
        image = Image(np.zeros((64, 64, 3), np.uint8), id="warm-up")
        self.ground([image], ["object"], threshold=0.5, text_threshold=0.5)

    def ground(
        self,
        images: Sequence[Image],
        phrases: Sequence[str],
        *,
        threshold: float,
        text_threshold: float,
    ) -> list[FoundObjects]:
        """Find what phrases say; see `sam2_blocks.executors.TextPrompted`.

        Raises:
            ValueError: if a phrase is longer than the model reads.
        """
        groups = self._passes(phrases)

        def find(chunk: Sequence[Image]) -> list[FoundObjects]:
            passes = [
                self._find(chunk, phrases, group, threshold, text_threshold) for group in groups
            ]
            return [FoundObjects.concatenate(found) for found in zip(*passes, strict=True)]

        if not groups:
            return [_nothing(image) for image in images]
        return self._network.map_pictures(find, images)

    def _passes(self, phrases: Sequence[str]) -> list[list[int]]:
        """Numbers of the phrases that each pass is about."""
        if self._as_one_text:
            return list(split_phrases(phrases, self._count_tokens, self._most_tokens))
        if self._in_a_sentence:  # a comma behind each phrase, and a word before them
            most = MOST_TOKENS - self._count_tokens(BEGINNING)
            return list(split_phrases(phrases, self._count_tokens, most))
        for phrase in phrases:
            check_length(phrase, self._count_tokens(phrase), self._most_tokens - AROUND)
        return [list(range(len(phrases)))] if phrases else []

    def _count_tokens(self, phrase: str) -> int:
        return len(self._tokenizer(phrase, add_special_tokens=False)["input_ids"])

    @property
    def _most_tokens(self) -> int:
        config = self._network.config
        text_length: int = config.text_config.max_position_embeddings
        return min(text_length, getattr(config, "max_text_len", text_length))

    def _find(
        self,
        images: Sequence[Image],
        phrases: Sequence[str],
        group: list[int],
        threshold: float,
        text_threshold: float,
    ) -> list[FoundObjects]:
        """Run one pass: some of the phrases on all of the pictures."""
        texts = [phrases[number] for number in group]
        if self._as_one_text:
            read = self._read_text(images, texts, threshold, text_threshold)
        else:
            read = self._read_queries(images, texts, threshold)
        numbers = np.array(group, np.int64)
        return [
            _named(image, boxes, scores, numbers[chosen], phrases)
            for image, (boxes, scores, chosen) in zip(images, read, strict=True)
        ]

    def _read_text(
        self, images: Sequence[Image], texts: list[str], threshold: float, text_threshold: float
    ) -> list[tuple[Any, Any, Int64Array]]:
        caption = Caption.of(texts)
        inputs = self._network.prepare(images, text=[caption.text] * len(images))
        outputs = self._network.network(**inputs)
        found = self._network.processor.post_process_grounded_object_detection(
            outputs,
            inputs["input_ids"],
            threshold=threshold,
            text_threshold=text_threshold,
            target_sizes=[image.hw for image in images],
        )
        offsets = self._tokenizer(caption.text, return_offsets_mapping=True)["offset_mapping"]
        of_tokens = caption.phrases_of_tokens(offsets)
        made = []
        for scores_of_tokens, answer in zip(torch.sigmoid(outputs.logits), found, strict=True):
            kept = scores_of_tokens.max(dim=-1).values > threshold  # as the processor keeps them
            tokens = scores_of_tokens[kept, : len(of_tokens)].float().cpu().numpy()
            chosen = name_boxes(tokens, of_tokens, text_threshold=text_threshold)
            named = chosen != NO_PHRASE
            made.append(
                (
                    answer["boxes"].float().cpu().numpy()[named],
                    answer["scores"].float().cpu().numpy()[named],
                    chosen[named],
                )
            )
        return made

    def _read_queries(
        self, images: Sequence[Image], texts: list[str], threshold: float
    ) -> list[tuple[Any, Any, Int64Array]]:
        if self._in_a_sentence:
            texts = [plain_phrase(text) for text in texts]  # as they were counted
        inputs = self._network.prepare(images, text=[texts] * len(images))
        outputs = self._network.network(**inputs)
        found = self._network.processor.post_process_grounded_object_detection(
            outputs, threshold=threshold, target_sizes=[image.hw for image in images]
        )
        return [
            (
                answer["boxes"].float().cpu().numpy(),
                answer["scores"].float().cpu().numpy(),
                answer["labels"].cpu().numpy().astype(np.int64),
            )
            for answer in found
        ]


def _named(
    image: Image, boxes: Any, scores: Any, numbers: Int64Array, phrases: Sequence[str]
) -> FoundObjects:
    return FoundObjects(
        image_hw=image.hw,
        boxes_xyxy=np.asarray(boxes, np.float32).reshape(-1, 4),
        confidence=np.asarray(scores, np.float32),
        class_ids=numbers,
        class_names=tuple(phrases[number] for number in numbers),
    )


def _nothing(image: Image) -> FoundObjects:
    return _named(image, [], [], np.zeros(0, np.int64), [])
