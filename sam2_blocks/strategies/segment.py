"""All prompts of a micro-batch: pictures are encoded together, prompts are decoded together.

Read it from top to bottom to follow one job: its prompts are parted into good and bad, its picture
is embedded unless it is an embedding, the good prompts are answered, and bad ones become empty
masks with a reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from sam2_blocks.errors import PromptWarning
from sam2_blocks.executors import Executor
from sam2_blocks.masks.rle import masks_to_prediction, spread_prediction
from sam2_blocks.options import SegmentOptions
from sam2_blocks.prompts import CheckedPrompts, split_prompts
from sam2_blocks.strategies.groups import map_groups
from sam2_blocks.strategies.tiles import segment_in_tiles
from sam2_blocks.values import Embedding, ExecutorSpec, Hw, Image, MaskPrediction, PromptSet

OnBadPrompt = Literal["error", "skip"]


@dataclass(frozen=True, eq=False)
class SegmentJob:
    """The prompts of one picture and how to answer them.

    Attributes:
        executor: what decodes, and encodes where there is no embedding yet.
        picture: the picture or its embedding.
        prompts: one an object.
        options: of the executor.
        tile_px: answer each prompt on a tile of this length around it; 0 takes the whole picture.
        on_bad_prompt: ``error`` fails the job if a prompt means nothing in the picture, ``skip``
            gives it an empty mask.
        no_object: prompts that stand for no object, by index, with the reason: they get an empty
            mask and are not looked at.
    """

    executor: Executor
    picture: Image | Embedding
    prompts: PromptSet
    options: SegmentOptions = field(default_factory=SegmentOptions)
    tile_px: int = 0
    on_bad_prompt: OnBadPrompt = "error"
    no_object: Mapping[int, str] = field(default_factory=dict)

    @property
    def encodes(self) -> bool:
        """Whether the whole picture is encoded for it."""
        return isinstance(self.picture, Image) and not self.tile_px and len(self.prompts) > 0

    @property
    def name(self) -> str:
        """Id of the picture."""
        return self.picture.image_id if isinstance(self.picture, Embedding) else self.picture.id

    @property
    def image_hw(self) -> Hw:
        """Size of the picture in pixels."""
        return self.picture.image_hw if isinstance(self.picture, Embedding) else self.picture.hw


class SegmentAnswer(NamedTuple):
    """What became of a job.

    Attributes:
        prediction: one mask a prompt, in order.
        skipped: why prompts have an empty mask without having been tried, by index.
    """

    prediction: MaskPrediction
    skipped: Mapping[int, str]


def segment_jobs(jobs: Sequence[SegmentJob]) -> list[SegmentAnswer | ValueError]:
    """Answer jobs, whatever their pictures, models and options, in as few calls as possible.

    Args:
        jobs: any number, usually those of a micro-batch.

    Returns:
        An answer a job, or what is wrong with it; the other jobs are answered all the same.

    Raises:
        ModelError: if a model cannot do what is asked of it.

    Warns:
        PromptWarning: once for all prompts that are skipped; see also `split_prompts`.
    """
    checked = [_check(job) for job in jobs]
    _warn_of_skipped([work for work in checked if isinstance(work, _Work)])
    predictions = iter(_predict([work for work in checked if isinstance(work, _Work)]))
    answers: list[SegmentAnswer | ValueError] = []
    for work in checked:
        made = work if isinstance(work, ValueError) else next(predictions)
        if isinstance(work, _Work) and isinstance(made, MaskPrediction):
            answers.append(work.answer(made))
        elif isinstance(made, ValueError):
            answers.append(made)
    return answers


class _Work(NamedTuple):
    """A job whose prompts are checked."""

    job: SegmentJob
    good: CheckedPrompts
    bad: Mapping[int, str]

    @property
    def skipped(self) -> dict[int, str]:
        return {**self.job.no_object, **self.bad}

    def answer(self, prediction: MaskPrediction) -> SegmentAnswer:
        """Put an empty mask where a prompt was skipped."""
        skipped, count = self.skipped, len(self.job.prompts)
        if skipped:
            kept = [index for index in range(count) if index not in skipped]
            prediction = spread_prediction(prediction, np.array(kept, np.int64), count)
        return SegmentAnswer(prediction, skipped)


def _check(job: SegmentJob) -> _Work | ValueError:
    if job.tile_px and isinstance(job.picture, Embedding):
        return ValueError(
            f"tile_px = {job.tile_px} cuts the picture itself, and got its embedding. Give "
            "'image' instead of 'embedding', or no tile_px."
        )
    indices = [index for index in range(len(job.prompts)) if index not in job.no_object]
    prompts = job.prompts
    if job.no_object:
        prompts = PromptSet(tuple(prompts.prompts[index] for index in indices))
    good, bad = split_prompts(prompts, job.image_hw, name=job.name)
    bad = {indices[place]: _renumbered(bad[place], place, indices[place]) for place in bad}
    if bad and job.on_bad_prompt == "error":
        return ValueError(next(iter(bad.values())))
    return _Work(job, good, bad)


def _renumbered(reason: str, place: int, index: int) -> str:
    return f"prompt {index}" + reason.removeprefix(f"prompt {place}")


def _warn_of_skipped(works: Sequence[_Work]) -> None:
    """Say once how many prompts of a micro-batch were skipped, and why the first was."""
    count = sum(len(work.bad) for work in works)
    if count:
        first = next(work for work in works if work.bad)
        total = sum(len(work.job.prompts) for work in works)
        warnings.warn(
            f"{count} of {total} prompts mean nothing in their image and have an empty mask: "
            f"{first.job.name}: {next(iter(first.bad.values()))}",
            PromptWarning,
            stacklevel=3,
        )


def _predict(works: Sequence[_Work]) -> list[MaskPrediction | ValueError]:
    """Answer the good prompts; jobs that share a model and options are decoded together."""
    whole = iter(_predict_whole([work for work in works if not work.job.tile_px]))
    return [_predict_tiled(work) if work.job.tile_px else next(whole) for work in works]


def _predict_tiled(work: _Work) -> MaskPrediction | ValueError:
    job = work.job
    assert isinstance(job.picture, Image)  # see `_check`
    try:
        return segment_in_tiles(
            job.executor, job.picture, work.good, tile_px=job.tile_px, options=job.options
        )
    except ValueError as error:  # a mask as a prompt, or the size of a tile
        return error


def _predict_whole(works: Sequence[_Work]) -> list[MaskPrediction]:
    """Encode what is not, then decode; a picture without prompts costs neither."""
    asking = [work for work in works if work.good]
    embeddings = embed_pictures([(work.job.executor, work.job.picture) for work in asking])

    def decode(
        key: tuple[ExecutorSpec, SegmentOptions], same: Sequence[tuple[_Work, Embedding]]
    ) -> list[MaskPrediction]:
        items = [(embedding, work.good) for work, embedding in same]
        return same[0][0].job.executor.segment(items, **key[1].keywords())

    made = iter(
        map_groups(
            list(zip(asking, embeddings, strict=True)),
            lambda pair: (pair[1].spec, pair[0].job.options),
            decode,
        )
    )
    return [
        next(made) if work.good else masks_to_prediction(np.zeros((0, *work.job.image_hw), bool))
        for work in works
    ]


def embed_pictures(pictures: Sequence[tuple[Executor, Image | Embedding]]) -> list[Embedding]:
    """Encode pictures, those of one executor together; embeddings pass through.

    Args:
        pictures: each with the executor that is to encode it.

    Returns:
        One embedding a picture, in order.
    """
    images = [(executor, one) for executor, one in pictures if isinstance(one, Image)]

    def encode(spec: ExecutorSpec, same: Sequence[tuple[Executor, Image]]) -> list[Embedding]:
        return same[0][0].embed([image for _, image in same])

    made = iter(map_groups(images, lambda pair: pair[0].spec, encode))
    return [one if isinstance(one, Embedding) else next(made) for _, one in pictures]
