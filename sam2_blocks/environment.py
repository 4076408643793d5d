"""Environment variables: one way to read a switch and a number."""

from __future__ import annotations

import os

from sam2_blocks.errors import Sam2BlocksError

ON, OFF = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def read_switch(name: str) -> bool:
    """Read a variable that is on or off; off if it is not set.

    Raises:
        Sam2BlocksError: if it is neither.
    """
    text = os.environ.get(name, "").strip().lower()
    if text not in ON + OFF:
        raise Sam2BlocksError(f"{name}={text!r}: wants true or false.")
    return text in ON


def read_count(name: str, default: int) -> int:
    """Read a variable that is a whole number, 0 or more.

    Args:
        name: of the variable.
        default: what it is where it is not set.

    Raises:
        Sam2BlocksError: if it is no such number.
    """
    text = os.environ.get(name, "").strip()
    if text and not text.isdecimal():
        raise Sam2BlocksError(f"{name}={text!r}: wants a number of entries, such as {default}.")
    return int(text) if text else default
