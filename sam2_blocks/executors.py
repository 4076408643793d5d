"""What a loaded model can do: the protocols that blocks, strategies and hosts lean on.

A **family** is one way to load models (`Family`, registered by the hook ``register_executors``);
``family:name`` names one of its models, and a bare name one of ``sam2``. What is loaded is at least
`Loaded`. What it can do is said by further protocols, one small one for each ability: `Executor`
embeds and segments, `MaskProposer` needs no prompts, and so on. A model has an ability if it has
its methods; nothing is declared. Who needs one asks with `require`, which says clearly when a model
lacks it, and never with ``getattr``. `sam2_blocks.testing.FakeExecutor` is the smallest model that
has them; ``docs/executors.md`` writes one with weights.

A new ability is a protocol here and, if pipelines of strangers may use it, a part in
`sam2_blocks.service.watched`: without one they do not get it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, runtime_checkable

from sam2_blocks.errors import ModelError
from sam2_blocks.found_objects import FoundObjects as FoundObjects
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
    full_name,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from sam2_blocks.executor.cache.lru import CacheStats


@runtime_checkable
class Loaded(Protocol):
    """Any loaded model. Stateless for callers and safe to call from several threads."""

    @property
    def spec(self) -> ExecutorSpec:
        """Resolved model, device, dtype and family, never ``auto``; its embeddings carry it."""
        ...


@runtime_checkable
class Executor(Loaded, Protocol):
    """A model that embeds pictures and segments what prompts point at."""

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """Encode pictures of any sizes, in as few passes of the network as memory allows.

        Args:
            images: uint8 RGB, (H, W, 3) each.

        Returns:
            One embedding a picture, in order, on the model's device.

        Raises:
            ImageError: if a picture is not of this form.
            ModelError: if the device has no memory for a single picture.
        """
        ...

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
            items: embeddings that this executor made, each with any number of prompts.
            multimask_output: see `SegmentOptions`, as for the next three.
            mask_threshold: a logit.
            max_hole_area: low-resolution pixels.
            max_sprinkle_area: low-resolution pixels.
            return_candidates: also return every proposal, as `MaskPrediction.candidates`.

        Returns:
            One prediction an item, in order, with one mask a prompt.

        Raises:
            ValueError: if an embedding is another executor's, or a prompt means nothing in its
                picture.
            ModelError: if the device has no memory for a single prompt.
        """
        ...


@runtime_checkable
class ExpectsPictures(Protocol):
    """An executor that can begin to encode a picture before it is asked to."""

    def expect(self, image: Image) -> None:
        """Announce a picture that `Executor.embed` is probably given soon; returns at once.

        Its embedding is that of a picture which was not announced. Threads may call it.

        Args:
            image: the very object that is given later.
        """
        ...


@runtime_checkable
class MaskProposer(Protocol):
    """An executor that can also segment without prompts; see `sam2_blocks.strategies.automatic`."""

    def propose_masks(
        self,
        embedding: Embedding,
        points_xy: Float32Array,
        settings: AutomaticSettings,
        *,
        return_logits: bool = False,
    ) -> AutomaticMasks:
        """Decode one foreground click a row and keep every mask that passes the filters.

        Args:
            embedding: one that this executor made.
            points_xy: float32, (P, 2), pixels of the original image.
            settings: thresholds of the filters; boxes are suppressed later.
            return_logits: keep the low-resolution logits too.

        Returns:
            None to three masks a point, in the order of the points.
        """
        ...


@runtime_checkable
class ObjectDetector(Protocol):
    """A model that finds objects of the classes it was trained for."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes it knows."""
        ...

    def detect(
        self, images: Sequence[Image], *, threshold: float, size_px: int = 0
    ) -> list[FoundObjects]:
        """Find objects in pictures of any sizes, several in one pass of the network.

        Args:
            images: the pictures.
            threshold: objects less certain are left out, 0 to 1.
            size_px: what the model scales a picture to; 0 is the size it was made for.

        Returns:
            What is in each picture, in their order; perhaps nothing.
        """
        ...


@runtime_checkable
class TextPrompted(Protocol):
    """A model that finds what phrases say."""

    def ground(
        self,
        images: Sequence[Image],
        phrases: Sequence[str],
        *,
        threshold: float,
        text_threshold: float,
    ) -> list[FoundObjects]:
        """Find what phrases say, in pictures of any sizes, several in one pass of the network.

        Args:
            images: the pictures.
            phrases: one or more, no two alike.
            threshold: objects less certain are left out, 0 to 1.
            text_threshold: how certain a word must be to name an object, for models that read
                all phrases as one text; 0 to 1.

        Returns:
            What is in each picture, in their order. The class name of an object is the phrase as
            it was written, its class id the place of the phrase in ``phrases``.
        """
        ...


@runtime_checkable
class Remembering(Protocol):
    """An executor with a cache of embeddings."""

    def find(self, key: str) -> Embedding | None:
        """Return the embedding with this content key if the cache still holds it."""
        ...


@runtime_checkable
class CountsCache(Protocol):
    """A model that counts what its cache did."""

    def cache_stats(self) -> CacheStats:
        """Return what the cache has done so far."""
        ...


@runtime_checkable
class ForgetsUnused(Protocol):
    """A model whose cache can drop pictures that do not come again, as in a run."""

    def forget_unused(self) -> None:
        """Drop what nobody has asked for since the last call."""
        ...


@runtime_checkable
class WarmsUp(Protocol):
    """A model with one-time costs that can be paid before the first request."""

    def warm_up(self) -> None:
        """Pay them now."""
        ...


@runtime_checkable
class HoldsMemory(Protocol):
    """A model that says how much of its device it takes, so that it counts in the budget."""

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        ...


@runtime_checkable
class KnowsDevice(Protocol):
    """A model that says how much memory its device has; half of that is the models' budget."""

    @property
    def device_nbytes(self) -> int | None:
        """Bytes of the device's memory; None if it does not say."""
        ...


class TrackSession(Protocol):
    """Objects followed through one video; frames come one by one, and memory does not grow.

    A step that raises changes nothing. Leave it as a context manager to free what it holds.
    """

    @property
    def tracker_ids(self) -> tuple[int, ...]:
        """The objects that are followed, in the order they were started."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held by what is remembered of all objects."""
        ...

    @property
    def ahead(self) -> int:
        """How many frames are worth announcing before they are given; 0 if none."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def expect(self, image: Image) -> None:
        """Announce a frame that `step` is given soon, which may then be faster."""
        ...

    def step(
        self,
        image: Image,
        prompts: PromptSet | Sequence[Prompt | Rle] | None = None,
        tracker_ids: Sequence[int | None] | None = None,
    ) -> Tracks:
        """Take the next frame: find every object again, and start those that are prompted.

        Args:
            image: the frame, of the size of the frames before.
            prompts: one an object: points, a box, earlier logits, or its mask on this frame. Each
                starts a new object, or shows a known one anew.
            tracker_ids: the object each prompt is about; None, for one or for all, is a new
                object, and an id that is not known is a new object with this id.

        Returns:
            All objects on this frame.

        Raises:
            ValueError: if the frame has another size than those before, a prompt means nothing in
                it, the ids are not one a prompt, or the session is closed.
        """
        ...

    def prompt(
        self,
        prompts: PromptSet | Sequence[Prompt | Rle],
        tracker_ids: Sequence[int | None] | None = None,
    ) -> Tracks:
        """Start objects, or show known ones anew, on the frame of the last step.

        Its arguments, what it returns and what it raises are those of `step`.
        """
        ...

    def correct(self, tracker_id: int, prompt: Prompt | Rle, *, keep: bool = False) -> Tracks:
        """Mend the mask of one object on the frame of the last step.

        Args:
            tracker_id: which object.
            prompt: points or a box, read beside earlier prompts; or its mask.
            keep: remember the object by this frame as if it had been prompted on it.

        Returns:
            All objects on the frame of the last step.

        Raises:
            ValueError: if the object is not followed, or the prompt means nothing in the frame.
        """
        ...

    def remove(self, tracker_id: int) -> None:
        """Stop following one object.

        Raises:
            ValueError: if it is not followed.
        """
        ...

    def reset(self) -> None:
        """Forget all objects and the frames' size; no id is given out a second time."""
        ...

    def close(self) -> None:
        """Free everything; the session cannot be used any more."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """An executor that can also follow objects through a video."""

    def track(self, settings: TrackSettings = ...) -> TrackSession:
        """Begin to follow objects through one video; nothing is followed yet."""
        ...


Ability = TypeVar("Ability")

_CANNOT: dict[type, str] = {
    Executor: "cannot embed and segment",
    MaskProposer: "cannot segment without prompts",
    ObjectDetector: "is no detector",
    TextPrompted: "does not read phrases",
    Remembering: "keeps no embeddings",
    Tracker: "cannot track",
}


def require(model: Loaded, ability: type[Ability]) -> Ability:
    """Return a model, typed as what it must be able to do.

    Args:
        model: any loaded model.
        ability: one of the protocols, ours or a plugin's own ``@runtime_checkable`` one.

    Returns:
        The same model.

    Raises:
        ModelError: if the model lacks a method of it; the message names the missing ones.
    """
    if isinstance(model, ability):
        return model
    missing = sorted(name for name in _members(ability) if not hasattr(model, name))
    cannot = _CANNOT.get(ability, f"is no {ability.__name__}")
    raise ModelError(
        f"the model {model.spec.full_name!r} {cannot}: it has no {', '.join(missing)}. "
        "Use another model."
    )


def _members(ability: type) -> set[str]:
    """Names of the methods and attributes that a protocol asks for."""
    return {
        name
        for base in ability.__mro__[:-1]
        if base is not Protocol
        for name in (*vars(base), *getattr(base, "__annotations__", ()))
        if not name.startswith("_")
    }


CHECKPOINT_SUFFIXES = (".pt", ".pth", ".safetensors")

ExecutorFactory = Callable[..., Loaded]
"""``factory(model, *, device, dtype) -> Loaded``; ``model`` is the name as it was asked for."""

FamilyOption = Literal["backend", "input_px"]


def is_checkpoint(model: str) -> bool:
    """Whether a model's name is the path of a checkpoint."""
    return Path(model).suffix in CHECKPOINT_SUFFIXES


@dataclass(frozen=True)
class Family:
    """One way to load models.

    Attributes:
        load: ``load(model, *, device, dtype)``, called once a model, device and dtype; may take
            long, and may ask the registry for other models. What it raises is reported as that
            model's error.
        options: further keyword arguments that ``load`` takes. To ask for a model with another
            option is an error.
        exhaustive: whether it loads nothing but files and the models that ``register_models``
            lists for it. Then a misspelt name is found when a pipeline is checked.
        is_file: whether a name means a file of this machine, which strangers may not name.
        is_download: whether a name means what would be fetched from a hub, which strangers may
            name only if whoever operates the host listed it.
        find_problem: says what is wrong with a name, as far as can be known without loading
            anything; empty if nothing is.
        class_names: the classes that a model knows, as far as that is known without loading or
            downloading anything; empty if it is not.
    """

    load: ExecutorFactory
    exhaustive: bool = False
    options: frozenset[FamilyOption] = frozenset()
    is_file: Callable[[str], bool] = is_checkpoint
    is_download: Callable[[str], bool] = lambda name: False
    find_problem: Callable[[str], str] = lambda name: ""
    class_names: Callable[[str], Sequence[str]] = lambda name: ()


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """One model that can be had by name; what ``register_models`` lists.

    Attributes:
        name: in its family, such as ``sam2.1/hiera_tiny``.
        family: the one that loads it.
        aliases: other names of it, the usual one first.
        url: where its weights are downloaded from, if `sam2_blocks.executor.toolkit` should.
        sha256: of that file.
        nbytes: size of that file, where it is known beforehand.
        repository: ``owner/name`` of the Hugging Face hub its weights are downloaded from.
        weights: where the weights are if there is neither, for people.
    """

    name: str
    family: str
    aliases: tuple[str, ...] = ()
    url: str | None = None
    sha256: str | None = None
    nbytes: int | None = None
    repository: str | None = None
    weights: str = "in the package"

    def __post_init__(self) -> None:
        if self.url is not None and self.sha256 is None:
            raise ValueError(f"model {self.full_name!r} has a url and no sha256 to check it by")

    @property
    def full_name(self) -> str:
        """The name that any pipeline may use."""
        return full_name(self.name, self.family)

    @property
    def embedded(self) -> bool:
        """Whether there is nothing to download."""
        return self.url is None and self.repository is None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it has in its family, the one to show first."""
        return (*self.aliases, self.name)
