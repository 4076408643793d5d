"""A model as one run of a stranger's pipeline gets it: each ability by itself, and no other.

A model may be able to do more than its protocol says, and tomorrow more than today. What a run may
ask of it is listed in `PARTS`, ability by ability, each with its limits; whatever is not there does
not exist for the run. So an ability that somebody adds is one that strangers do not have, until
somebody also says here how a deadline ends it and what is too much of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sam2_blocks.executors import (
    Executor,
    FoundObjects,
    Loaded,
    MaskProposer,
    ObjectDetector,
    Remembering,
    TextPrompted,
    Tracker,
    TrackSession,
    require,
)
from sam2_blocks.options import AutomaticSettings, TrackSettings
from sam2_blocks.values import (
    AutomaticMasks,
    Embedding,
    ExecutorSpec,
    Float32Array,
    Image,
    MaskPrediction,
    Prompt,
    PromptSet,
    Rle,
    Tracks,
)

DEFAULT_TRACKING = TrackSettings()


class Watch(Protocol):
    """What a run decides about the calls of models; see `sam2_blocks.service.runs.Run`."""

    def check(self) -> None:
        """Raise if nobody waits any more."""
        ...

    def check_prompts(self, prompt_sets: Sequence[PromptSet]) -> None:
        """Raise if there are too many."""
        ...


def watched(model: Loaded, run: Watch) -> Loaded:
    """Return what a run may use of a model: its known abilities, and nothing else.

    Args:
        model: any.
        run: asked before each call, so that a run that nobody waits for ends.
    """
    parts = [part for ability, part in PARTS.items() if isinstance(model, ability)]
    made: Loaded = type("Watched", (*parts, _Watched), {})(model, run)
    return made


class _Watched:
    """A model whose calls belong to one run."""

    def __init__(self, model: Any, run: Watch) -> None:
        self._model = model
        self._run = run

    @property
    def spec(self) -> ExecutorSpec:
        spec: ExecutorSpec = self._model.spec
        return spec

    def __getattr__(self, name: str) -> Any:
        """Say why; ``hasattr`` and ``isinstance`` get the same answer."""
        raise AttributeError(
            f"{name!r} of model {self._model.spec.full_name!r} is nothing that a run with limits "
            "may use"
        )


class _Executor(_Watched):
    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        self._run.check()
        return require(self._model, Executor).embed(images)

    def segment(
        self, items: Sequence[tuple[Embedding, PromptSet]], **options: Any
    ) -> list[MaskPrediction]:
        self._run.check()
        self._run.check_prompts([prompts for _, prompts in items])
        return require(self._model, Executor).segment(items, **options)


class _MaskProposer(_Watched):
    def propose_masks(
        self,
        embedding: Embedding,
        points_xy: Float32Array,
        settings: AutomaticSettings,
        **options: Any,
    ) -> AutomaticMasks:
        self._run.check()
        proposer = require(self._model, MaskProposer)
        return proposer.propose_masks(embedding, points_xy, settings, **options)


class _ObjectDetector(_Watched):
    @property
    def class_names(self) -> tuple[str, ...]:
        return require(self._model, ObjectDetector).class_names

    def detect(self, images: Sequence[Image], **options: Any) -> list[FoundObjects]:
        self._run.check()
        return require(self._model, ObjectDetector).detect(images, **options)


class _TextPrompted(_Watched):
    def ground(
        self, images: Sequence[Image], phrases: Sequence[str], **options: Any
    ) -> list[FoundObjects]:
        self._run.check()
        return require(self._model, TextPrompted).ground(images, phrases, **options)


class _Remembering(_Watched):
    def find(self, key: str) -> Embedding | None:
        self._run.check()
        return require(self._model, Remembering).find(key)


class _Tracker(_Watched):
    def track(self, settings: TrackSettings = DEFAULT_TRACKING) -> TrackSession:
        self._run.check()
        return _Session(require(self._model, Tracker).track(settings), self._run)


class _Session:
    """A session whose steps belong to one run; a deadline ends it between two frames."""

    def __init__(self, session: TrackSession, run: Watch) -> None:
        self._session = session
        self._run = run

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def tracker_ids(self) -> tuple[int, ...]:
        return self._session.tracker_ids

    @property
    def nbytes(self) -> int:
        return self._session.nbytes

    @property
    def ahead(self) -> int:
        return self._session.ahead

    def expect(self, image: Image) -> None:
        self._run.check()
        self._session.expect(image)

    def step(
        self,
        image: Image,
        prompts: PromptSet | Sequence[Prompt | Rle] | None = None,
        tracker_ids: Sequence[int | None] | None = None,
    ) -> Tracks:
        self._check(prompts or ())
        return self._session.step(image, prompts, tracker_ids)

    def prompt(
        self,
        prompts: PromptSet | Sequence[Prompt | Rle],
        tracker_ids: Sequence[int | None] | None = None,
    ) -> Tracks:
        self._check(prompts)
        return self._session.prompt(prompts, tracker_ids)

    def correct(self, tracker_id: int, prompt: Prompt | Rle, *, keep: bool = False) -> Tracks:
        self._check([prompt])
        return self._session.correct(tracker_id, prompt, keep=keep)

    def remove(self, tracker_id: int) -> None:
        self._session.remove(tracker_id)

    def reset(self) -> None:
        self._session.reset()

    def close(self) -> None:
        self._session.close()

    def _check(self, prompts: PromptSet | Sequence[Prompt | Rle]) -> None:
        """Look at the deadline, and count the prompts; a mask is one, too."""
        self._run.check()
        given = prompts.prompts if isinstance(prompts, PromptSet) else prompts
        counted = tuple(one if isinstance(one, Prompt) else Prompt() for one in given)
        self._run.check_prompts([PromptSet(counted)])


PARTS: Mapping[type, type[_Watched]] = {
    Executor: _Executor,
    MaskProposer: _MaskProposer,  # a call is one batch of points; a run is looked at between them
    ObjectDetector: _ObjectDetector,  # a call is one batch of views
    TextPrompted: _TextPrompted,
    Remembering: _Remembering,
    Tracker: _Tracker,
}
"""What a run may use, by ability. `WarmsUp` and `CountsCache` are for whoever operates a model;
a `Tracker` keeps state between requests, which a run of one item has no use for."""
