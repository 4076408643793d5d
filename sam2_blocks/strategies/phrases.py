"""Phrases as one text for models that read it whole, and its tokens back to phrases. No torch.

Grounding DINO reads ``a cup. a spoon.`` and says for each box how well it fits each token. Its
text answer joins all tokens above a threshold, over several phrases if need be. Here a box belongs
to the one phrase whose best token is the most certain.

Source: https://arxiv.org/abs/2303.05499; ``get_phrases_from_posmap`` of transformers makes the
text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sam2_blocks.values import Float32Array, Int64Array

SEPARATOR = ". "
AROUND = 2  # the tokens that begin and end a text
NO_PHRASE = -1

Offsets = Sequence[tuple[int, int]]
"""Where each token begins and ends in a text; equal for tokens that stand for nothing in it."""


@dataclass(frozen=True)
class Caption:
    """Several phrases as one text.

    Attributes:
        text: the phrases in lower case, with a full stop behind each.
        spans: where each phrase begins and ends in it.
    """

    text: str
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, phrases: Sequence[str]) -> Caption:
        """Write phrases as one text; a full stop inside a phrase would end it, so it goes."""
        spans, start = [], 0
        texts = [plain_phrase(phrase) for phrase in phrases]
        for text in texts:
            spans.append((start, start + len(text)))
            start += len(text) + len(SEPARATOR)
        return cls(SEPARATOR.join(texts) + ".", tuple(spans))

    def phrases_of_tokens(self, offsets: Offsets) -> Int64Array:
        """Return the number of the phrase that each token is in, or `NO_PHRASE`."""
        return np.array([self._phrase_at(start, stop) for start, stop in offsets], np.int64)

    def _phrase_at(self, start: int, stop: int) -> int:
        if start == stop:
            return NO_PHRASE
        inside = (i for i, (low, high) in enumerate(self.spans) if low <= start and stop <= high)
        return next(inside, NO_PHRASE)


def plain_phrase(phrase: str) -> str:
    """A phrase as such models read it: lower case, single spaces, no full stops."""
    return " ".join(phrase.lower().replace(".", " ").split())


def name_boxes(
    token_scores: Float32Array, phrase_of_token: Int64Array, *, text_threshold: float
) -> Int64Array:
    """Find the phrase of each box.

    Args:
        token_scores: float32, (N, T), how well each box fits each token, 0 to 1.
        phrase_of_token: int64, (T,), the phrase each token is in, or `NO_PHRASE`.
        text_threshold: a token names a box only if its score is above.

    Returns:
        (N,), numbers of phrases; `NO_PHRASE` where no token of any names the box. Of phrases with
        equal best tokens, the one whose tokens fit better together, then the first.
    """
    count = int(phrase_of_token.max(initial=NO_PHRASE)) + 1
    if not count or not len(token_scores):
        return np.full(len(token_scores), NO_PHRASE, np.int64)
    of_phrases = [token_scores[:, phrase_of_token == phrase] for phrase in range(count)]
    best = np.stack([tokens.max(axis=1, initial=0) for tokens in of_phrases], axis=1)
    means = np.stack(
        [tokens.mean(axis=1) if tokens.size else best[:, 0] * 0 for tokens in of_phrases], 1
    )
    order = np.lexsort((np.broadcast_to(-np.arange(count), best.shape), means, best), axis=1)
    chosen = order[:, -1]
    certain = np.take_along_axis(best, chosen[:, None], axis=1)[:, 0] > text_threshold
    return np.where(certain, chosen, NO_PHRASE).astype(np.int64)


def split_phrases(
    phrases: Sequence[str], count_tokens: Callable[[str], int], most_tokens: int
) -> Iterator[list[int]]:
    """Divide phrases into texts that a model can read, as few as their order allows.

    Args:
        phrases: the phrases.
        count_tokens: says how many tokens a phrase has.
        most_tokens: tokens in a text, with the two around it and a full stop behind each phrase.

    Yields:
        Numbers of the phrases of each text.

    Raises:
        ValueError: if one phrase alone is too long.
    """
    group: list[int] = []
    used = AROUND
    for number, phrase in enumerate(phrases):
        needed = count_tokens(plain_phrase(phrase)) + 1
        check_length(phrase, needed - 1, most_tokens - AROUND - 1)
        if group and used + needed > most_tokens:
            yield group
            group, used = [], AROUND
        group.append(number)
        used += needed
    if group:
        yield group


def check_length(phrase: str, tokens: int, most: int) -> None:
    """Refuse a phrase that is longer than a model reads.

    Raises:
        ValueError: if it has more tokens than that.
    """
    if tokens > most:
        raise ValueError(
            f"the phrase {phrase!r} has {tokens} tokens, and the model reads {most}. Shorten it."
        )


def check_phrases(phrases: Sequence[str], max_phrases: int) -> None:
    """Refuse phrases that say nothing, say the same, or are too many.

    Raises:
        ValueError: naming the first of them.
    """
    if len(phrases) > max_phrases:
        raise ValueError(
            f"there are {len(phrases)} phrases, and max_phrases is {max_phrases}. Every few take "
            "another pass of the model; give fewer, or raise max_phrases."
        )
    seen: dict[str, str] = {}
    for phrase in phrases:
        plain = plain_phrase(phrase)
        if not plain:
            raise ValueError(f"the phrase {phrase!r} says nothing. Give words, such as 'red car'.")
        if plain in seen:
            raise ValueError(f"the phrases {seen[plain]!r} and {phrase!r} are the same.")
        seen[plain] = phrase
