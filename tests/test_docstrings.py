"""Every public name has an example of a few lines in its docstring, which runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import itertools

import pytest

import sam2_blocks
from tests.conftest import ROOT
from tools.site_pages import public_places


def docstring_of(place):
    """The docstring of a name; that of a variable stands below it."""
    module_name, _, name = place.rpartition(".")
    module = importlib.import_module(module_name)
    body = ast.parse(inspect.getsource(module)).body
    for node, following in itertools.pairwise(body):
        assigned = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
        if assigned and isinstance(following, ast.Expr):
            return ast.literal_eval(following.value)
    return inspect.getdoc(getattr(module, name))


@pytest.mark.parametrize("name", sorted(sam2_blocks.__all__))
def test_the_example_of_a_public_name_runs(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    names = {public: getattr(sam2_blocks, public) for public in sam2_blocks.__all__}
    text = docstring_of(public_places()[name])
    test = doctest.DocTestParser().get_doctest(text, names, name, name, 0)
    assert test.examples, f"{name} has no example"
    shown = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=shown.append)
    assert runner.failures == 0, "".join(shown)
