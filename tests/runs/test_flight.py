from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from sam2_blocks import Item
from sam2_blocks.engine.records import ItemResult
from sam2_blocks.runs.flight import Flight
from sam2_blocks.runs.merge import merge_parts
from sam2_blocks.runs.stores import LocalStore, open_store
from tests.conftest import ROOT

NAME = ".flying.json"


def open_flight(folder, **options):
    options = {"resume": True, "window": 2, **options}
    flight = Flight((open_store(folder), NAME), **options)
    flight.begin()
    return flight


def items(names, **more):
    return [Item(name, {}, "1", place=place, **more) for place, name in enumerate(names)]


def die_in(flight, listed, count):
    """Take so many of the items; the rest never happens."""
    taken = flight.note(listed)
    return [next(taken).id for _ in range(count)]


def ids(held):
    return [one.id for one in held if isinstance(one, Item)]


def test_a_run_that_comes_to_an_end_leaves_no_note(tmp_path):
    flight = open_flight(tmp_path)
    for item in flight.note(items("abc")):
        assert item.id in json.loads((tmp_path / NAME).read_text())["flying"]
        flight.land(item.id)
    assert list(flight.held()) == []
    flight.end()
    assert not (tmp_path / NAME).exists()
    assert isinstance(open_store(tmp_path), LocalStore)


def test_who_was_under_way_is_held_back(tmp_path):
    assert die_in(open_flight(tmp_path), items("abcdef"), 3) == ["a", "b", "c"]  # c's window has d
    again = open_flight(tmp_path)
    assert [item.id for item in again.note(items("abcdef"))] == ["e", "f"]
    assert ids(again.held()) == ["a", "b", "c", "d"]
    again.end()
    assert not (tmp_path / NAME).exists()


def test_an_interruption_or_an_error_is_no_death(tmp_path):
    flight = open_flight(tmp_path)
    die_in(flight, items("ab"), 2)
    flight.end()
    assert [item.id for item in open_flight(tmp_path).note(items("ab"))] == ["a", "b"]


def test_items_before_an_error_of_the_source_are_given_first(tmp_path):
    def torn():
        yield from items("abc")
        raise ValueError("torn")

    given: list[str] = []
    flight = open_flight(tmp_path)
    with pytest.raises(ValueError, match="torn"):
        given.extend(item.id for item in flight.note(torn()))
    assert given == ["a", "b", "c"]  # windows have two, and the second one is not full


def test_who_dies_alone_twice_is_set_aside(tmp_path):
    die_in(open_flight(tmp_path), items("abcd"), 2)
    for _ in range(2):
        flight = open_flight(tmp_path)
        list(flight.note(items("abcd")))
        held = flight.held()
        while next(held).id != "a":  # the process dies at a, alone
            pass
    flight = open_flight(tmp_path)
    list(flight.note(items("abcd")))
    [result] = [one for one in flight.held() if isinstance(one, ItemResult)]
    assert (result.id, result.errors[0].step, result.errors[0].cause) == (
        "a",
        "process",
        "SetAside",
    )
    assert "--resume --retry-set-aside tries it again" in result.errors[0].message
    flight.end()
    flight = open_flight(tmp_path, retry=True)
    list(flight.note(items("abcd")))
    assert ids(flight.held()) == ["a"]


def test_who_killed_once_comes_after_the_others(tmp_path):
    die_in(open_flight(tmp_path), items("abc"), 3)
    flight = open_flight(tmp_path)
    list(flight.note(items("abc")))
    assert next(flight.held()).id == "a"
    flight = open_flight(tmp_path)
    list(flight.note(items("abc")))
    assert ids(flight.held()) == ["b", "c", "a"]


def test_a_changed_item_and_a_run_from_the_start_suspect_nobody(tmp_path):
    die_in(open_flight(tmp_path), items("ab"), 1)
    changed = [Item("a", {}, "2", place=0), *items("ab")[1:]]
    flight = open_flight(tmp_path)
    assert [item.id for item in flight.note(changed)] == ["a"]
    flight = open_flight(tmp_path, resume=False)
    assert [item.id for item in flight.note(items("ab"))] == ["a", "b"]


def test_a_group_is_held_back_as_a_whole_and_in_order(tmp_path):
    clips = [*items("ab"), *items("xyz", group="clip")]
    taken = open_flight(tmp_path).note(clips)
    assert [next(taken).id for _ in range(4)] == ["a", "b", "x", "y"]
    flight = open_flight(tmp_path, window=9)
    assert [item.id for item in flight.note(clips)] == []
    assert ids(flight.held()) == ["a", "x", "b", "y", "z"]


def test_a_torn_note_is_none(tmp_path):
    (tmp_path / NAME).write_bytes(b'{"flying": {"a"')
    flight = open_flight(tmp_path)
    assert [item.id for item in flight.note(items("a"))] == ["a"]


def test_notes_afar_are_few():
    import fsspec

    fsspec.filesystem("memory").store.clear()
    store = open_store("memory://notes")
    written = []
    store.note = lambda name, content: written.append(content)
    flight = Flight((store, NAME), resume=True, window=2)
    flight.begin()
    list(flight.note(items(map(str, range(200)))))
    assert len(written) == 4


PROGRAM = """
import os, signal, sys
import sam2_blocks.engine.builtin as builtin
from sam2_blocks import run_pipeline, load_plugins
from sam2_blocks.testing import FakeExecutor
from tests.runs.sinks.test_parquet import SEGMENT
class Deadly(FakeExecutor):
    def embed(self, images):
        if any(image.id == "5.png" for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed(images)
builtin.load_sam2 = Deadly if sys.argv[3] == "deadly" else FakeExecutor
form, shard = sys.argv[4:6]
run = run_pipeline(SEGMENT, sys.argv[1], out=sys.argv[2], form=form, shard=shard or None,
    batch_size=3, resume=True, retry_set_aside="retry" in sys.argv, plugins=load_plugins(points=[]))
for result in run:
    print(result.id)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="wants a system that kills")
@pytest.mark.parametrize(("form", "shard"), [("folder", ""), ("parquet", "1/1")])
def test_a_picture_that_kills_the_process_is_set_aside(tmp_path, form, shard):
    (tmp_path / "in").mkdir()
    for number in range(10):
        Pil.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "in" / f"{number}.png")

    def start(how, *more):
        command = [sys.executable, "-c", PROGRAM, tmp_path / "in", tmp_path / "out", how]
        environment = {**os.environ, "PYTHONPATH": "."}
        return subprocess.run(
            [*command, form, shard, *more],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    codes = [start("deadly").returncode for _ in range(4)]
    assert codes == [-signal.SIGKILL] * 3 + [0]  # in company, and twice alone
    assert start("deadly").stdout.split() == ["5.png"]  # still set aside
    if form == "folder":
        [error] = json.loads((tmp_path / "out" / "errors.json").read_text())
        assert error["cause"] == "SetAside"
        done = {path.parent.name for path in (tmp_path / "out").glob("*/found.json")}
    else:
        rows = pq.read_table(merge_parts(tmp_path / "out", "parquet").path).to_pylist()
        done = {row["id"] for row in rows}
    assert done == {f"{n}.png" for n in range(10) if n != 5}
    assert start("well", "retry").stdout.split() == ["5.png"]
    assert not (tmp_path / "out" / "errors.json").exists()
    assert not list((tmp_path / "out").glob(".flying*"))
