from __future__ import annotations

import asyncio

import pytest

from sam2_blocks import errors
from sam2_blocks.errors import (
    ForeignError,
    PipelineError,
    Problem,
    Sam2BlocksError,
    StepError,
    as_error,
    did_you_mean,
    foreign_code,
    message_of,
)


def test_hosts_need_to_catch_one_error_only():
    raised = [value for value in vars(errors).values() if isinstance(value, type)]
    ours = [
        value for value in raised if issubclass(value, Exception) and not issubclass(value, Warning)
    ]
    assert len(ours) > 8
    assert all(issubclass(value, Sam2BlocksError) for value in ours)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("is wrong.", "steps.a", 3, 7), "p.yaml:3:7: steps.a: is wrong."),
        (Problem("is wrong.", "steps.a"), "p.yaml: steps.a: is wrong."),
        (Problem("is wrong."), "p.yaml: is wrong."),
    ],
)
def test_a_problem_says_where_it_is(problem, text):
    assert problem.render("p.yaml") == text


def test_an_error_of_a_document_says_all_problems():
    error = PipelineError("p.yaml", [Problem("one"), Problem("two", "a")])
    assert str(error) == "p.yaml: one\np.yaml: a: two"
    assert [problem.message for problem in error.problems] == ["one", "two"]


def test_an_error_of_a_step_names_step_and_block():
    error = StepError("cut", "sam2/segment@v1", "no boxes")
    assert str(error) == "step 'cut' (sam2/segment@v1): no boxes"
    assert (error.step, error.block) == ("cut", "sam2/segment@v1")


@pytest.mark.parametrize(
    ("name", "choices", "hint"),
    [
        ("modl", ["model", "image"], " Did you mean 'model'?"),
        ("zzz", ["model", "image"], " Valid: 'image', 'model'."),
        ("zzz", [], ""),
        ("zzz", [f"n{i:02}" for i in range(13)], "'n11', …."),
        ("x" * 101, ["x" * 100], f" Valid: '{'x' * 100}'."),
    ],
)
def test_the_closest_name_is_suggested_or_the_names_are_listed(name, choices, hint):
    assert did_you_mean(name, choices).endswith(hint)
    assert bool(did_you_mean(name, choices)) == bool(choices)


class UnreadableError(Exception):
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("as it is"), "as it is"),
        (KeyError(), "KeyError"),
        (UnreadableError(), "UnreadableError"),
    ],
)
def test_an_error_says_something_whatever_it_is(error, said):
    assert message_of(error) == said
    assert as_error(error) is error


@pytest.mark.parametrize("raised", [SystemExit("out"), asyncio.CancelledError(), GeneratorExit()])
def test_what_is_no_error_becomes_one_that_names_it(raised):
    made = as_error(raised)
    assert isinstance(made, ForeignError)
    assert str(made).startswith(f"{type(raised).__name__}: ")
    assert made.__cause__ is raised


def test_an_interrupt_stays_one():
    with pytest.raises(KeyboardInterrupt):
        as_error(KeyboardInterrupt())


@pytest.mark.parametrize("raised", [SystemExit(0), asyncio.CancelledError(), GeneratorExit()])
def test_out_of_foreign_code_come_errors_alone(raised):
    with pytest.raises(ForeignError, match=type(raised).__name__), foreign_code():
        raise raised


@pytest.mark.parametrize("raised", [KeyError("k"), StopIteration(), KeyboardInterrupt()])
def test_errors_and_interrupts_come_out_of_foreign_code_as_they_are(raised):
    with pytest.raises(type(raised)) as caught, foreign_code():
        raise raised
    assert caught.value is raised
