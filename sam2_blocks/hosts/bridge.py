"""What every host adapter needs: which blocks it gets, and one block called from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sam2_blocks.engine.plugins import Plugins
from sam2_blocks.engine.records import Item, Outputs
from sam2_blocks.engine.resources import Resources
from sam2_blocks.engine.runner import Runner
from sam2_blocks.errors import Sam2BlocksError, StepError
from sam2_blocks.forks import ForkSafeLock
from sam2_blocks.installed import version_of
from sam2_blocks.kinds import dump_value, element_kind, kinds_named
from sam2_blocks.language.composed import PipelineManifest
from sam2_blocks.language.manifest import Manifest
from sam2_blocks.language.pipeline import Pipeline, load_pipeline, one_step

BATCH_SIZE = 32

NO_CLASS = ("", "object")
"""What objects are called whose class is unknown."""
DETECTIONS = frozenset(
    {
        "object_detection_prediction",
        "instance_segmentation_prediction",
        "rle_instance_segmentation_prediction",
    }
)


@dataclass(frozen=True)
class Offer:
    """Which blocks a host gets.

    Attributes:
        blocks: manifests by the name their block has there.
        left_out: why the others are not there, by block id.
    """

    blocks: Mapping[str, Manifest]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class HostReport:
    """One host; what `sam2_blocks.engine.hookspecs.HostReport` asks for.

    Attributes:
        title: name of the host.
        installed: distribution and version that was found; empty if there is none.
        how: what a user does to have the blocks there.
        offer: the blocks it gets.
    """

    title: str
    installed: str
    how: str
    offer: Offer

    @property
    def blocks(self) -> Mapping[str, str]:
        """The names that blocks have there, by block id."""
        return {manifest.id: name for name, manifest in self.offer.blocks.items()}

    @property
    def left_out(self) -> Mapping[str, str]:
        """Why other blocks are not there, by block id."""
        return self.offer.left_out


def make_offer(
    plugins: Plugins,
    *,
    kinds: Collection[str],
    name_of: Callable[[str], str],
    trusted: bool,
    reserved: Collection[str] = (),
) -> Offer:
    """Choose the blocks that can work in a host.

    Args:
        plugins: where the blocks are.
        kinds: names of the kinds that exist there.
        name_of: makes the block's name there from its id.
        trusted: whether those who write its pipelines may read and write files of its machine.
        reserved: names that inputs and parameters cannot have there.

    Returns:
        Every block, either with its name in the host or with the reason why it is left out.
    """
    names = {block: name_of(block) for block in plugins.manifests}
    uses = Counter(names.values())
    blocks: dict[str, Manifest] = {}
    left_out: dict[str, str] = {}
    for block, manifest in sorted(plugins.manifests.items()):
        reason = _obstacle(manifest, kinds, reserved)
        if manifest.file_access != "none" and not trusted:
            reason = _of_strangers(manifest)
        if not reason and uses[names[block]] > 1:
            reason = f"another block would be called {names[block]!r} there too"
        if reason:
            left_out[block] = reason
        else:
            blocks[names[block]] = manifest
    return Offer(blocks, left_out)


def offer_in_pipelines(plugins: Plugins, *, trusted: bool) -> Offer:
    """Choose the blocks for a host that runs whole pipelines of ours, where they keep their ids.

    Args:
        plugins: where the blocks are.
        trusted: see `make_offer`.
    """
    left_out = {
        block: _of_strangers(manifest)
        for block, manifest in sorted(plugins.manifests.items())
        if manifest.file_access != "none" and not trusted
    }
    offered = {b: m for b, m in sorted(plugins.manifests.items()) if b not in left_out}
    return Offer(offered, left_out)


def ends_of(pipeline: Pipeline, given: Collection[str] = ()) -> tuple[str, str]:
    """Find the input for the picture and the output of objects, for hosts that have one of each.

    Args:
        pipeline: any.
        given: inputs that have a value already.

    Returns:
        Names of the input for the picture and of the first output of detections.

    Raises:
        Sam2BlocksError: if there is not one image, another input lacks a value, or nothing is
            found.
    """
    inputs = {name: one for name, one in pipeline.inputs.items() if name not in given}
    images = [name for name, one in inputs.items() if "image" in one.kinds]
    others = [name for name, one in inputs.items() if one.required and name not in images]
    outputs = [
        name
        for name, selector in pipeline.outputs.items()
        if DETECTIONS & set(pipeline.kinds_of(selector))
    ]
    if len(images) != 1 or others or not outputs:
        raise Sam2BlocksError(
            f"{pipeline.source}: a pipeline that labels pictures has one image, no other input "
            f"without a value, and an output of detections; it has the images {images}, lacks "
            f"{others}, and has the outputs {list(pipeline.outputs)}."
        )
    return images[0], outputs[0]


def installed_version(*distributions: str) -> str:
    """Return name and version of the first of these distributions that is installed, or ``""``."""
    found = ((name, version_of(name)) for name in distributions)
    return next((f"{name} {version}" for name, version in found if version), "")


class _StoppedByHost(KeyboardInterrupt):
    """Carries what a host raised through our runner, which only an interruption ends at once."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self.reason = reason


class BlockBridge:
    """One block as a host calls it: rows of values in, rows of outputs out.

    Behind it is our own runner with a pipeline of this one step, so that checks, hooks and messages
    are those of any pipeline. Threads may share it; a block works for one of them at a time.

    Args:
        manifest: the block.
        plugins: where it comes from.
        resources: executors, shared by all blocks of the host.
        batch_size: rows that the block sees at once.
    """

    def __init__(
        self,
        manifest: Manifest,
        plugins: Plugins,
        resources: Resources,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._manifest = manifest
        self._plugins = plugins
        self._resources = resources
        self._batch_size = batch_size
        self._runners: dict[tuple[str, ...], Runner] = {}
        self._lock = ForkSafeLock()

    def run(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        step: str = "step",
        before_row: Callable[[], None] = lambda: None,
    ) -> list[Outputs]:
        """Call the block.

        Args:
            rows: values by input or parameter; None is the same as not given.
            step: name of the step, for messages.
            before_row: called when a row is read, which is a batch ahead at most; what it raises
                ends the run and reaches the caller, so that a host can stop us.

        Returns:
            Outputs by name, one mapping a row, in order.

        Raises:
            StepError: if any row fails; a host has no use for half a batch.
            PipelineError: if the rows do not connect what the manifest requires.
        """
        given = [{k: v for k, v in row.items() if v is not None} for row in rows]
        names = tuple(name for name in self._manifest.names if any(name in row for row in given))
        params = self._manifest.params
        defaults = {name: p.default for name, p in params.items() if not p.required}

        def items() -> Iterator[Item]:
            for index, row in enumerate(given):
                try:
                    before_row()
                except BaseException as error:
                    raise _StoppedByHost(error) from error
                yield Item(str(index), {name: row.get(name, defaults.get(name)) for name in names})

        try:
            with self._lock.held():
                results = list(self._runner(names).run(items()))
        except _StoppedByHost as stopped:
            raise stopped.reason from None
        except StepError as error:  # names our inner step; the host's user knows another name
            raise StepError(step, self._manifest.id, str(error.__cause__)) from error.__cause__
        errors = [error for result in results for error in result.errors]
        if errors:
            of_many = f"item {errors[0].item} of {len(given)}: " if len(given) > 1 else ""
            raise StepError(step, self._manifest.id, of_many + errors[0].message)
        return [result.outputs for result in results]

    def dump(self, name: str, value: Any) -> Any:
        """Make plain data of an output, by its kind.

        Args:
            name: of the output.
            value: as `run` returned it.

        Raises:
            TypeError: if it cannot be plain data.
        """
        return dump_value(
            value, kinds_named(self._manifest.outputs[name].kinds, self._plugins.kinds)
        )

    def finish(self) -> None:
        """Let the block write what it holds."""
        with self._lock.held():
            for runner in self._runners.values():
                runner.finish()

    def _runner(self, names: tuple[str, ...]) -> Runner:
        if names not in self._runners:
            document = one_step({name: f"$inputs.{name}" for name in names}, self._manifest)
            pipeline = load_pipeline(document, self._plugins.manifests, self._plugins.kinds)
            self._runners[names] = Runner(
                pipeline, self._plugins, resources=self._resources, batch_size=self._batch_size
            )
        return self._runners[names]


def _of_strangers(manifest: Manifest) -> str:
    return f"it {manifest.file_access}s files of the machine, on behalf of strangers"


def _obstacle(manifest: Manifest, kinds: Collection[str], reserved: Collection[str]) -> str:
    """What keeps a block out of a host; empty if nothing does."""
    clash = sorted(set(manifest.names) & set(reserved))
    if clash:
        return f"{clash[0]!r} is a name the host keeps for itself"
    for name, given in manifest.inputs.items():
        if given.many:
            return f"{name!r} joins steps that may be skipped, which only our pipelines have"
    if isinstance(manifest, PipelineManifest):
        for name in filter(manifest.pipeline.may_lack, manifest.pipeline.outputs):
            return f"its output {name!r} may be absent; give it a default in the pipeline"
    for name, socket in (*manifest.inputs.items(), *manifest.outputs.items()):
        if not {element_kind(kind) for kind in socket.kinds} & set(kinds):
            return f"the kind of {name!r}, {' or '.join(socket.kinds)}, does not exist there"
    return ""
