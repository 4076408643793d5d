"""The files that blocks write and read during a run: each is written by one, all are known."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePath
from weakref import WeakValueDictionary

from sam2_blocks.files.reading import file_stamp
from sam2_blocks.forks import ForkSafeLock

ERRORS_FILE = "errors.json"
JOURNAL_FILE = ".finished.jsonl"
STARTED_FILE = ".started.jsonl"
LOCK_FILE = ".finished.lock"
FLIGHT_FILE = ".flying.json"
RESERVED = frozenset({ERRORS_FILE, FLIGHT_FILE, JOURNAL_FILE, STARTED_FILE, LOCK_FILE})
"""Files of the run itself, at the top of its folder."""


class OutputFiles:
    """Files of one folder, given to the blocks that write them; threads may share it.

    Args:
        folder: where they are.
        kept: items that an earlier run finished there and this one does not do again, each with
            its files: a block that writes one file for all items keeps what it says of them.
        shared_before: files for all items that the earlier run wrote, each with the class of the
            block that did.
        order: place of each item in the run, where some are kept, so that a file for all items
            has them in the same order as if all had been done now.
        shard: name of the shard of a run that this is, such as ``1-of-2``; files for all items are
            called after it, ``coco.1-of-2.json``.

    Attributes:
        on_claim: called with an item, empty for all, and a file of it that is about to be written
            the first time.
        keeps_reads: whether to remember what is read for each item until `read_for`.
    """

    def __init__(
        self,
        folder: str | Path = ".",
        *,
        kept: Mapping[str, Sequence[Path]] | None = None,
        shared_before: Mapping[Path, str] | None = None,
        order: Mapping[str, int] | None = None,
        shard: str = "",
    ) -> None:
        self.shard = shard
        self.folder = Path(folder)
        self.kept = dict(kept or {})
        self.shared_before = dict(shared_before or {})
        self.order = order or {}
        # Files are known by resolved names: texts are a fraction of what paths take.
        self._kept_files = {_key(f): item for item, files in self.kept.items() for f in files}
        self._before = {_key(path) for path in self.shared_before}
        self._writers: WeakValueDictionary[str, object] = WeakValueDictionary()
        self._claimed: set[str] = set()
        self._shared: dict[Path, str] = {}
        self._by_item: dict[str, dict[Path, None]] = defaultdict(dict)
        self._reads: dict[str, dict[str, str]] = defaultdict(dict)
        self.on_claim: Callable[[str, Path], None] | None = None
        self.keeps_reads = False
        self._lock = ForkSafeLock()

    def claim(self, path: str | Path, writer: object, item: str = "") -> Path:
        """Take a file for one block alone, as long as the block is there.

        Args:
            path: the file, relative to the folder.
            writer: the block.
            item: the one whose results the file holds, if not those of all.

        Returns:
            The path to write to.

        Raises:
            ValueError: if it is not below the folder, the run or another block writes it, or it
                is the file of an item that is not done again.
        """
        target, key = self.reserve(path if item else self._of_shard(path), writer)
        owner = self._kept_files.get(key, item)
        if owner != item:
            raise ValueError(f"{target} is the file of {owner!r}, which an earlier run finished")
        with self._lock.held():
            is_new = target not in (self._by_item[item] if item else self._shared)
            self._claimed.add(key)
            if item:
                self._by_item[item][target] = None
            else:
                self._shared[target] = type(writer).__qualname__
        if is_new and self.on_claim:
            self.on_claim(item, target)
        return target

    def note_read(self, path: str | Path, item: str) -> None:
        """Note, before it is read, that the results of an item depend on a file.

        Args:
            path: the file, which need not be there: then they depend on its absence.
            item: whose results.
        """
        if not self.keeps_reads:
            return
        stamp = file_stamp(path)
        with self._lock.held():
            self._reads[item].setdefault(os.path.abspath(path), stamp)

    def reserve(self, path: str | Path, writer: object) -> tuple[Path, str]:
        """Take a file without noting which item it is of; see `claim`.

        Args:
            path: the file, relative to the folder.
            writer: the block.

        Returns:
            The path to write to, and that path with all links resolved.

        Raises:
            ValueError: if it is not below the folder, or the run or another block writes it.
        """
        target, folder = self.folder / path, PurePath(_key(self.folder))
        resolved = PurePath(_key(target))
        if not resolved.is_relative_to(folder):
            raise ValueError(
                f"{str(path)!r} is not below the output folder {str(self.folder)!r}; give 'path' "
                "relative to it"
            )
        if resolved.parent == folder and resolved.name in RESERVED:
            raise ValueError(f"{target} is a file of the run itself; choose another 'path'")
        with self._lock.held():
            if self._writers.setdefault(str(resolved), writer) is not writer:
                raise ValueError(
                    f"another step or output writes {target}, too; give each its own 'path'"
                )
        return target, str(resolved)

    def claim_left(self, writer: object) -> list[Path]:
        """Take the shared files that a block's class wrote in an earlier run and not in this one.

        It is called at the end of a run, when what they say of items that failed meanwhile is out
        of date.

        Args:
            writer: the block.

        Returns:
            Paths to write to; none where no result of an earlier run is kept.
        """
        own = type(writer).__qualname__
        left = [path for path, name in self.shared_before.items() if name == own]
        return [
            self.claim(path.relative_to(self.folder), writer)
            for path in left
            if self.kept and _key(path) not in self._claimed
        ]

    def _of_shard(self, path: str | Path) -> Path:
        path, ending = Path(path), f".{self.shard}{Path(path).suffix}"
        if not self.shard or path.name.endswith(ending):
            return path
        return path.with_name(f"{path.stem}{ending}")

    def kept_in(self, path: Path) -> Collection[str]:
        """Return the ids of items whose entries in a shared file are to be kept as they are."""
        return self.kept.keys() if _key(path) in self._before else ()

    def of_item(self, item: str) -> list[Path]:
        """Files that blocks took for an item."""
        with self._lock.held():
            return list(self._by_item.get(item, ()))

    def read_for(self, item: str) -> dict[str, str]:
        """Hand over which files were read for an item, each with its stamp."""
        with self._lock.held():
            return self._reads.pop(item, {})

    def forget_item(self, item: str) -> None:
        """Forget the files of an item, which are noted elsewhere by now; memory does not grow."""
        with self._lock.held():
            self._by_item.pop(item, None)

    def of_all(self) -> dict[Path, str]:
        """Files that blocks took for all items, each with the class of its block."""
        with self._lock.held():
            return dict(self._shared)

    def is_needed(self, path: Path) -> bool:
        """Whether a block took this file in this run, or an item that is kept has it."""
        key = _key(path)
        with self._lock.held():
            return key in self._claimed or key in self._kept_files


def _key(path: Path) -> str:
    return os.path.realpath(path)
