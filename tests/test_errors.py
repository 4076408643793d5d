from __future__ import annotations

import asyncio

import pytest

from sam2_blocks.errors import ForeignError, as_error, did_you_mean, message_of


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


def test_a_close_name_is_suggested_and_else_all_are_listed():
    assert did_you_mean("hiera_lage", ["nano", "hiera_large"]) == " Did you mean 'hiera_large'?"
    assert did_you_mean("xyz", ["b", "a"]) == " Valid: 'a', 'b'."
    assert did_you_mean("xyz", []) == ""
