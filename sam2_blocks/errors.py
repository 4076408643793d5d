"""Every error we raise on purpose, under one root.

A message says where, what was expected, what came, and what to do. Pure functions raise
``ValueError`` or ``TypeError``; the runner wraps them in `StepError`. Hosts catch only the root.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

# Comparing takes time in proportion to both, and names may come from strangers.
LONGEST_COMPARED = 100
MOST_COMPARED = 500


class Sam2BlocksError(Exception):
    """Root of all errors of this library.

    Example:
        >>> try:
        ...     read_image("missing.jpg")
        ... except Sam2BlocksError as error:
        ...     print(error)
        missing.jpg: no such file. Check the path.
    """


class UsageError(Sam2BlocksError):
    """A command names something that is not there, or a value that cannot be read."""


class PluginError(Sam2BlocksError):
    """A plugin could not be loaded, or registered something twice.

    Example:
        >>> plugins = load_plugins(points=[])
        >>> try:
        ...     plugins.register(object(), "builtin")
        ... except PluginError as error:
        ...     print(type(error).__name__)
        PluginError
    """


class ImageError(Sam2BlocksError):
    """A picture cannot be read: missing, truncated, too large, or not a picture.

    Example:
        >>> try:
        ...     read_image(b"no picture")
        ... except ImageError as error:
        ...     print(str(error).partition(":")[0])
        image (10 bytes)
    """


class ModelError(Sam2BlocksError):
    """A model cannot be loaded: unknown name, missing or wrong weights, no such device.

    Example:
        >>> try:
        ...     load_executor("hiera_tinny")
        ... except ModelError as error:
        ...     print(error)
        there is no model 'hiera_tinny'. Did you mean 'hiera_tiny'?
    """


class PromptWarning(UserWarning):
    """A prompt works, but looks like a mistake."""


class FileWarning(UserWarning):
    """A file was read, but something in it was guessed, clipped or left out."""


class MissingExtraError(Sam2BlocksError):
    """An optional dependency is not installed; the message names the extra.

    Example:
        >>> raise MissingExtraError("Serving wants more packages: pip install 'sam2-blocks[http]'.")
        Traceback (most recent call last):
        sam2_blocks.errors.MissingExtraError: Serving wants ... 'sam2-blocks[http]'.
    """


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a YAML file.

    Attributes:
        message: what is wrong and what to do about it.
        where: dotted path inside the document, such as ``steps.segment.with.boxes``.
        line: line in the file, counted from 1; None where the document has no text.
        column: column in the line, counted from 1.
        source: file, if it is another than the one that was asked for.
    """

    message: str
    where: str = ""
    line: int | None = None
    column: int | None = None
    source: str = ""

    def render(self, source: str) -> str:
        """Format as ``file:line:column: where: message``."""
        source = self.source or source
        place = source if self.line is None else f"{source}:{self.line}:{self.column}"
        return (
            f"{place}: {self.where}: {self.message}" if self.where else f"{place}: {self.message}"
        )


class DocumentError(Sam2BlocksError):
    """A YAML document is wrong; carries every problem found, not only the first."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.render(source) for problem in self.problems))


class ManifestError(DocumentError):
    """A block manifest is wrong (found when loading).

    Example:
        >>> error = ManifestError("gamma.yaml", [])  # raised with every problem, each with its line
        >>> error.source, error.problems
        ('gamma.yaml', ())
    """


class PipelineError(DocumentError):
    """A pipeline is wrong (found when loading, before any model loads).

    Example:
        >>> plugins = load_plugins(points=[])
        >>> try:
        ...     plugins.load_pipeline({"pipeline_version": 1})
        ... except PipelineError as error:
        ...     print([problem.where for problem in error.problems])
        ['inputs', 'steps', 'outputs']
    """


class StepError(Sam2BlocksError):
    """A step failed on one item (found when running); raised ``from`` its cause.

    Attributes:
        step: id of the step in the pipeline.
        block: id of its block, such as ``sam2/segment@v1``.

    Example:
        >>> error = StepError("segment", "sam2/segment@v1", "prompt 0: box is inverted")
        >>> error.step, str(error)
        ('segment', "step 'segment' (sam2/segment@v1): prompt 0: box is inverted")
    """

    def __init__(self, step: str, block: str, message: str) -> None:
        self.step = step
        self.block = block
        super().__init__(f"step {step!r} ({block}): {message}")


class SourceError(Sam2BlocksError):
    """What gives the items of a run failed half-way; all before it were run.

    Example:
        >>> def pictures():
        ...     yield "examples/pictures/coins.jpg"
        ...     raise ValueError("the camera is gone")
        >>> run = run_pipeline("examples/quickstart.yaml", pictures())
        >>> [next(run).id]
        ['examples/pictures/coins.jpg']
        >>> try:
        ...     next(run)
        ... except SourceError as error:
        ...     print(str(error).partition(" raised ")[2])
        ValueError: the camera is gone. All before it were run.
    """


class ForeignError(Sam2BlocksError):
    """Other people's code raised something that is no `Exception`, such as ``SystemExit``."""


def message_of(error: BaseException) -> str:
    """Return what an error says, or the name of its type where it says nothing or cannot."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # an error's own ``__str__`` is other people's code, too
        text = ""
    return text or type(error).__name__


def as_error(error: BaseException) -> Exception:
    """Turn whatever other people's code raised into an error that ends one item, not the program.

    Args:
        error: what a block, a kind, a hook, a factory or an imported module raised.

    Returns:
        The same if it is an `Exception`, else a `ForeignError` that names it.

    Raises:
        KeyboardInterrupt: if it is that: an interrupt stays one.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, Exception):
        return error
    foreign = ForeignError(f"{type(error).__name__}: {message_of(error)}")
    foreign.__cause__ = error
    return foreign


def is_full(error: BaseException) -> bool:
    """Whether a disk has no room, or not for this user."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def foreign_code() -> Iterator[None]:
    """Scope of a call into other people's code, out of which come errors and interrupts alone.

    Raises:
        ForeignError: for what is neither; see `as_error`.

    Example:
        >>> try:
        ...     with foreign_code():
        ...         raise SystemExit(0)
        ... except Sam2BlocksError as error:
        ...     print(error)
        SystemExit: 0
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        raise as_error(error) from error


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Suggest the closest valid name and list the choices, as the tail of a message.

    Args:
        name: what the user wrote.
        choices: the valid names.

    Returns:
        A sentence that starts with a space, ready to be appended; empty without choices.
    """
    names = sorted(set(choices))
    short = len(name) <= LONGEST_COMPARED and len(names) <= MOST_COMPARED
    close = get_close_matches(name, names, n=1, cutoff=0.5) if short else []
    if close:
        return f" Did you mean {close[0]!r}?"
    if not names:
        return ""
    shown = ", ".join(repr(choice) for choice in names[:12])
    return f" Valid: {shown}{', …' if len(names) > 12 else ''}."
