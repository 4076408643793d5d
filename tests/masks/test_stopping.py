from __future__ import annotations

import threading

import pytest

from sam2_blocks.masks.stopping import look_up, stopping


def refuse():
    raise RuntimeError("not wanted")


def test_work_is_wanted_where_nobody_said_what_to_ask():
    look_up()


def test_what_the_check_raises_ends_the_loop_and_later_ones_go_on():
    with pytest.raises(RuntimeError, match="not wanted"), stopping(refuse):
        look_up()
    look_up()


def test_other_threads_are_not_asked():
    errors = []

    def work():
        try:
            look_up()
        except RuntimeError as error:
            errors.append(error)

    with stopping(refuse):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert errors == []
