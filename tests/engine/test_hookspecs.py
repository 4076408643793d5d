from __future__ import annotations

import pytest

from sam2_blocks import hookimpl
from sam2_blocks.errors import StepError


def test_a_hook_that_raises_is_named(doubling):
    class Broken:
        @hookimpl
        def before_step(self):
            raise RuntimeError("no luck")

    doubling.plugins.manager.register(Broken())
    message = r"step 'once' .*: a plugin's hook 'before_step' failed: RuntimeError: no luck"
    with pytest.raises(StepError, match=message):
        doubling.run([1])


def test_hooks_are_called(doubling):
    calls = []

    class Listener:
        @hookimpl
        def before_step(self, step, item_ids):
            calls.append(("before", step.id, item_ids))

        @hookimpl
        def after_step(self, step, outputs):
            calls.append(("after", step.id, outputs))

        @hookimpl
        def on_step_error(self, step, item_id, error):
            calls.append(("error", step.id, item_id, str(error)))

    doubling.plugins.manager.register(Listener())
    doubling.run([1, 7])
    assert calls == [
        ("before", "once", ["0", "1"]),
        ("error", "once", "1", "step 'once' (test/double@v1): 7 is refused"),
        ("after", "once", [{"number": 2}]),
        ("before", "twice", ["0"]),
        ("after", "twice", [{"number": 4}]),
    ]
