from __future__ import annotations

import pytest

from sam2_blocks import Item, Runner
from sam2_blocks.engine.intake import Intake, name_failures
from sam2_blocks.errors import ForeignError, PipelineError, SourceError, UsageError
from tests.engine.conftest import Double


def giving(count, error, name="{}"):
    """Items that double, and then an error."""
    yield from (Item(name.format(i), {"x": float(i)}) for i in range(count))
    raise error


def run_until(error, runner, items, **options):
    """Ids of the results that come before an error, and what it says."""
    ids: list[str] = []
    with pytest.raises(error) as raised:
        ids.extend(result.id for result in runner.run(items, **options))
    return ids, str(raised.value)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 6, 7])
def test_what_came_before_an_error_of_the_source_is_run_first(doubling, count):
    settled: list[str] = []

    def settle(results):
        settled.extend(result.id for result in results)
        return results

    with Runner(doubling.pipeline, doubling.plugins, batch_size=3) as runner:
        items = giving(count, ValueError("no more film"), "p{}")
        ids, said = run_until(SourceError, runner, items, settle=settle)
    assert ids == settled == [f"p{i}" for i in range(count)]
    after = f", after 'p{count - 1}'," if count else ""
    assert said.startswith(f"inputs: item {count + 1}{after} cannot be had")
    assert said.endswith("raised ValueError: no more film. All before it were run.")
    assert sum(len(batch) for batch in Double.batches) == 2 * count  # two steps, nothing twice


@pytest.mark.parametrize("wrong", range(7))
def test_what_came_before_an_item_that_ends_the_run_is_run_first(doubling, wrong):
    items = [Item(str(i), {"x": 1.0} if i != wrong else {"y": 1.0}) for i in range(7)]
    with Runner(doubling.pipeline, doubling.plugins, batch_size=3) as runner:
        ids, said = run_until(PipelineError, runner, items)
    assert ids == [str(i) for i in range(wrong)]
    assert f"item '{wrong}': no input is called 'y'" in said


def test_an_interruption_of_the_source_is_one_at_once(doubling):
    with Runner(doubling.pipeline, doubling.plugins, batch_size=3) as runner:
        ids, _ = run_until(KeyboardInterrupt, runner, giving(5, KeyboardInterrupt()))
    assert ids == []  # nobody wants to wait for the micro-batch that was read


def test_an_error_of_ours_stays_the_same():
    with pytest.raises(UsageError, match=r"^line 3 is torn$"):
        list(name_failures(giving(2, UsageError("line 3 is torn"))))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(3), "raised SystemExit: 3. All"),
        (ForeignError("CancelledError"), "raised CancelledError. All"),
        (KeyError(), "raised KeyError. All"),
    ],
)
def test_whatever_else_it_raises_is_said_with_the_number(error, said):
    with pytest.raises(SourceError, match=r"^inputs: item 3, after '1', cannot be had") as raised:
        list(name_failures(giving(2, error)))
    assert said in str(raised.value)


def test_an_intake_reads_no_further_than_it_is_asked():
    read: list[int] = []

    def numbers():
        for number in range(9):
            read.append(number)
            yield number

    intake = Intake(numbers())
    assert (intake.take(2), read) == ([0, 1], [0, 1])
    assert intake.take(99) == list(range(2, 9))
    assert intake.take(1) == []
    intake.check()
