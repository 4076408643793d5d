"""Every difference that the page for who comes from Roboflow tells of has a test that exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "coming-from" / "roboflow.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (?!difference|---)", line)]
CITED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


def test_every_difference_has_a_test():
    assert len(ROWS) >= 25
    assert [row for row in ROWS if not re.search(r"\| `[\w/]+\.py::\w+` \|$", row)] == []


@pytest.mark.parametrize(("file", "name"), CITED)
def test_the_test_of_a_difference_exists(file, name):
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_files_that_are_named_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)`", PAGE)
    assert len(named) == 2
    assert [name for name in named if not (ROOT / name).exists()] == []
