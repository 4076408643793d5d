"""Which items were under way when a process died, so that one that kills it is set aside.

A process that is killed says nothing. So the items under way are noted before they are, in a small
file beside the results, and taken out of it at every end that is none of these. What a later run
finds there, with ``--resume``, is suspected: it is held back until all others are done, and then
each is alone in the process. Who was alone when the process died again killed it, once; who did so
twice is set aside with an error. An operator who kills at any moment meets a suspect alone rarely,
and the same one twice practically never.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ValidationError

from sam2_blocks.engine.intake import Intake
from sam2_blocks.engine.records import ErrorRecord, Item, ItemResult
from sam2_blocks.runs.stores import LocalStore, Store

MOST_DEATHS = 2
REMOTE_WINDOW = 64
"""Items noted at once where a note takes its time."""

SET_ASIDE = (
    "killed the process twice, both times alone in it, so it is set aside; --resume "
    "--retry-set-aside tries it again"
)


class Suspect(BaseModel):
    """An item that was under way when a process died.

    Attributes:
        stamp: of the item then; a changed one is suspected no more.
        group: of the item; a group is held back as a whole, because its order counts.
        deaths: how often the process died while it was alone.
    """

    stamp: str
    group: str = ""
    deaths: int = 0


class Note(BaseModel):
    """What the file holds.

    Attributes:
        flying: items under way, by id.
        alone: whether that is one that is suspected, and nothing else.
        suspects: those of earlier runs that were not cleared yet, by id.
    """

    flying: dict[str, Suspect] = {}
    alone: bool = False
    suspects: dict[str, Suspect] = {}


@runtime_checkable
class HasFlightNote(Protocol):
    """A sink with a place for the note of what is under way."""

    @property
    def flight_note(self) -> tuple[Store, str] | None:
        """A store and the name of a file; None where nobody could go on anyway."""
        ...


class Flight:
    """Notes what is under way; see the module.

    Args:
        place: store and name of the note; None notes nothing.
        resume: whether an earlier note counts.
        window: items that are noted at once.
        retry: try those again that are set aside.
    """

    def __init__(
        self, place: tuple[Store, str] | None, *, resume: bool, window: int, retry: bool = False
    ) -> None:
        self._place = place
        self._resume = resume
        self._retry = retry
        self._window = window
        if place is not None and not isinstance(place[0], LocalStore):
            self._window = max(window, REMOTE_WINDOW)
        self._note = Note()
        self._held: list[Item] = []
        self._written = False

    def begin(self) -> None:
        """Take over what the last run noted."""
        if self._place is not None:
            found = _read(*self._place)
            self._written = found is not None
            if found and self._resume:
                self._note.suspects = _suspects(found, retry=self._retry)
            self._write()

    def note(self, items: Iterable[Item]) -> Iterator[Item]:
        """Give the items on when they are noted, but for those that are suspected."""
        if self._place is None:
            yield from items
            return
        groups = {suspect.group for suspect in self._note.suspects.values()} - {""}
        intake = Intake(item for item in items if not self._holds_back(item, groups))
        while window := intake.take(self._window):
            yield from self._announce(window)
        intake.check()

    def held(self) -> Iterator[Item | ItemResult]:
        """Give the others one by one, when all else is done; the result of those set aside."""
        held = {item.id for item in self._held}
        for name in self._note.suspects.keys() - held:  # done, or gone
            del self._note.suspects[name]
        for item in sorted(self._held, key=self._order):
            self._note.flying.clear()
            if self._deaths(item) >= MOST_DEATHS:
                record = ErrorRecord(item.id, "process", "", SET_ASIDE, "SetAside")
                yield ItemResult(item.id, {}, (record,))
                continue
            self._note.alone = True
            yield from self._announce([item])
            self._note.suspects.pop(item.id, None)

    def land(self, item: str) -> None:
        """Forget an item whose result is there."""
        self._note.flying.pop(item, None)

    def end(self) -> None:
        """Take out what is under way: the process lives. Those that were not cleared stay."""
        self._note.flying.clear()
        if self._place is not None:
            with suppress(OSError):  # a full disk: what ends the run is said elsewhere
                self._write()

    def _holds_back(self, item: Item, groups: Collection[str]) -> bool:
        held = item.group in groups or self._is_suspect(item)
        if held:
            self._held.append(item)
        return held

    def _announce(self, items: list[Item]) -> list[Item]:
        for item in items:
            deaths = self._deaths(item)
            flying = Suspect(stamp=item.stamp, group=item.group, deaths=deaths)
            self._note.flying[item.id] = flying
        self._write()
        return items

    def _write(self) -> None:
        if self._place is None:
            return
        store, name = self._place
        if self._note.flying or self._note.suspects:
            store.note(name, json.dumps(self._note.model_dump()).encode() + b"\n")
            self._written = True
        elif self._written:
            store.delete(name)
            self._written = False

    def _is_suspect(self, item: Item) -> bool:
        suspect = self._note.suspects.get(item.id)
        if suspect is not None and suspect.stamp != item.stamp:
            del self._note.suspects[item.id]
            return False
        return suspect is not None

    def _deaths(self, item: Item) -> int:
        suspect = self._note.suspects.get(item.id)
        return suspect.deaths if suspect else 0

    def _order(self, item: Item) -> tuple[int, int]:
        """Who is more likely to kill comes later; a group stays in its order."""
        if not item.group:
            return self._deaths(item), item.place or 0
        same = (s.deaths for s in self._note.suspects.values() if s.group == item.group)
        return max(same, default=0), item.place or 0


def _read(store: Store, name: str) -> Note | None:
    """The note of the last run; an empty one if it is torn."""
    content = store.read(name)
    if content is None:
        return None
    with suppress(ValidationError, ValueError):
        return Note.model_validate(json.loads(content.partition(b"\n")[0]))
    return Note()


def _suspects(found: Note, *, retry: bool) -> dict[str, Suspect]:
    """Those of the last run, and whom it left under way."""
    suspects = dict(found.suspects)
    for name, flying in found.flying.items():
        deaths = flying.deaths + found.alone
        suspects[name] = flying.model_copy(update={"deaths": deaths})
    if retry:
        for name, suspect in suspects.items():
            if suspect.deaths >= MOST_DEATHS:
                suspects[name] = suspect.model_copy(update={"deaths": 0})
    return suspects
