"""Every public name has an example of a few lines in its docstring; every example runs."""

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


def public_names():
    return {public: getattr(sam2_blocks, public) for public in sam2_blocks.__all__}


def failures_of(test):
    """What is wrong with a docstring's examples; empty if nothing is."""
    shown = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=shown.append)
    return "".join(shown) if runner.failures else ""


@pytest.mark.parametrize("name", sorted(sam2_blocks.__all__))
def test_the_example_of_a_public_name_runs(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    text = docstring_of(public_places()[name])
    test = doctest.DocTestParser().get_doctest(text, public_names(), name, name, 0)
    assert test.examples, f"{name} has no example"
    assert not failures_of(test)


def modules_with_other_examples():
    """Modules with examples, by name; those of public names run above."""
    for path in sorted((ROOT / "sam2_blocks").rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", list(modules_with_other_examples()))
def test_every_other_example_runs(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SAM2_BLOCKS_PLUGINS", "")
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder()
    for test in finder.find(module, globs={**public_names(), **vars(module)}):
        if test.name.rpartition(".")[2] not in sam2_blocks.__all__:
            assert not failures_of(test)
