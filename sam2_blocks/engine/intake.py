"""Items of a source, as many at a time as are run together.

A source may fail half-way: a generator raises, a table is torn. What it gave before is run first,
and then its error ends the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Generic, TypeVar

from sam2_blocks.engine.records import Item
from sam2_blocks.errors import ForeignError, Sam2BlocksError, SourceError, foreign_code, message_of

Taken = TypeVar("Taken")


class Intake(Generic[Taken]):
    """Takes what an iterator gives, some at a time; its error comes after what it gave.

    Args:
        given: read no further than is asked for. An interruption is raised at once.

    Example:
        >>> def gives():
        ...     yield from (1, 2, 3)
        ...     raise ValueError("torn")
        >>> intake = Intake(gives())
        >>> intake.take(2), intake.take(2), intake.take(2)
        ([1, 2], [3], [])
        >>> intake.check()
        Traceback (most recent call last):
        ValueError: torn
    """

    def __init__(self, given: Iterable[Taken]) -> None:
        self._given = iter(given)
        self._error: Exception | None = None

    def take(self, most: int) -> list[Taken]:
        """Take so many, or what is left; what came before an error, and nothing after it."""
        found: list[Taken] = []
        try:
            while len(found) < most and self._error is None:
                found.append(next(self._given))
        except StopIteration:
            pass
        except Exception as error:
            self._error = error
        return found

    def check(self) -> None:
        """Raise what the iterator raised, once all that came before it is dealt with."""
        if self._error is not None:
            raise self._error


def name_failures(items: Iterable[Item]) -> Iterator[Item]:
    """Give items on; what is no error of ours when the next one is asked for says which it was.

    Raises:
        SourceError: if who gives the items fails.
    """
    given, last = iter(items), ""
    for number in count(1):
        try:
            with foreign_code():  # a source may be a plugin's, and a generator anybody's
                item = next(given)
        except StopIteration:
            return
        except Exception as error:
            if isinstance(error, Sam2BlocksError) and not isinstance(error, ForeignError):
                raise
            after = f", after {last!r}," if last else ""
            said = message_of(error)
            kind = type(error).__name__
            cause = said if isinstance(error, ForeignError) or said == kind else f"{kind}: {said}"
            raise SourceError(
                f"inputs: item {number}{after} cannot be had, because what gives the items raised "
                f"{cause}. All before it were run."
            ) from error
        last = getattr(item, "id", "")
        yield item
