"""Low-resolution logits of earlier prompts, as the start of later ones with more points."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from dataclasses import replace
from typing import NamedTuple

from sam2_blocks.masks.stopping import look_up
from sam2_blocks.values import Embedding, Float32Array, MaskPrediction, Prompt, PromptSet

Point = tuple[float, float, int]
Family = tuple[str, str, tuple[float, ...] | None]


class PromptKey(NamedTuple):
    """One prompt on one image.

    Attributes:
        client: who asked; nobody starts from what others did.
        image: key of the embedding: pixels, model, dtype and preprocessing.
        box_xyxy: the box, all four numbers of it, or None.
        points: (x, y, label), sorted, so that their order does not matter.
    """

    client: str
    image: str
    box_xyxy: tuple[float, ...] | None
    points: tuple[Point, ...]

    @property
    def family(self) -> Family:
        """What prompts must share for one to start from the other."""
        return self.client, self.image, self.box_xyxy


def prompt_key(embedding: Embedding, prompt: Prompt, client: str = "") -> PromptKey:
    """Name a prompt of a client, so that equal names mean equal prompts.

    Args:
        embedding: of the image.
        prompt: a box, points, or both; the order of points does not count.
        client: who sent it.
    """
    box = None if prompt.box_xyxy is None else tuple(prompt.box_xyxy.tolist())
    points: list[Point] = []
    if prompt.point_coords is not None and prompt.point_labels is not None:
        labelled = zip(prompt.point_coords.tolist(), prompt.point_labels.tolist(), strict=True)
        points = sorted((x, y, label) for (x, y), label in labelled)
    return PromptKey(client, embedding.key, box, tuple(points))


class LogitsCache:
    """Logits by prompt, least recently used out first; shared by threads.

    Prompts are kept and found one by one: a set of prompts is no unit here.

    Args:
        max_entries: most prompts kept; 0 keeps none.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[PromptKey, Float32Array] = OrderedDict()
        # By family the prompts, each with its points counted.
        self._families: dict[Family, dict[PromptKey, Counter[Point]]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def save(
        self,
        embedding: Embedding,
        prompts: PromptSet,
        prediction: MaskPrediction,
        *,
        client: str = "",
    ) -> None:
        """Keep the logits of every prompt, for `load`.

        Args:
            embedding: of the image.
            prompts: N.
            prediction: what was answered to them, N masks in their order.
            client: whose prompts they are; nobody else gets their logits.
        """
        with self._lock:
            for prompt, logits in zip(prompts.prompts, prediction.low_res_logits, strict=True):
                key = prompt_key(embedding, prompt, client)
                self._entries[key] = logits.copy()  # a view would keep the whole set alive
                self._entries.move_to_end(key)
                self._families.setdefault(key.family, {})[key] = Counter(key.points)
            while len(self._entries) > self._max_entries:
                self._forget_oldest()

    def load(self, embedding: Embedding, prompts: PromptSet, *, client: str = "") -> PromptSet:
        """Give each prompt the logits of its largest prior as ``mask_input``, if it has one.

        A prior is an earlier prompt on the same image, with the same box, whose points are some but
        not all of the prompt's.

        Args:
            embedding: of the image.
            prompts: of the request.
            client: whose they are; only priors of the same client count.

        Returns:
            The same prompts in their order, with or without ``mask_input``.
        """
        with self._lock:
            keys = [prompt_key(embedding, prompt, client) for prompt in prompts.prompts]
            pairs = zip(prompts.prompts, keys, strict=True)
            return PromptSet(tuple(self._start(prompt, key) for prompt, key in pairs))

    def _start(self, prompt: Prompt, key: PromptKey) -> Prompt:
        points = Counter(key.points)
        family = self._families.get(key.family, {})
        # The largest first, so that not all need a look.
        ranked = sorted(family, key=lambda prior: (len(prior.points), prior.points), reverse=True)
        for prior in ranked:
            look_up()
            if len(prior.points) < len(key.points) and _holds(points, family[prior]):
                self._entries.move_to_end(prior)
                return replace(prompt, mask_input=self._entries[prior][None])
        return prompt

    def _forget_oldest(self) -> None:
        key, _ = self._entries.popitem(last=False)
        family = self._families[key.family]
        del family[key]
        if not family:
            del self._families[key.family]


def _holds(points: Counter[Point], some: Counter[Point]) -> bool:
    """Like ``some <= points``, which looks at every point of both before it says no."""
    return all(points.get(point, 0) >= count for point, count in some.items())
