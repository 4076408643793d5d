"""Every difference that the page for who comes from Roboflow tells of has a test that exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT
from tests.hosts.upstream import DIFFERENT, SAME, flat

PAGE = (ROOT / "docs" / "coming-from" / "roboflow.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (?!difference|---)", line)]
CITED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


def test_every_difference_has_a_test():
    assert len(ROWS) >= 25
    assert [row for row in ROWS if not re.search(r"\| `[\w/]+\.py::\w+` \|$", row)] == []


def functions_of(file):
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("file", "name"), CITED)
def test_the_test_of_a_difference_exists(file, name):
    assert name in functions_of(file)


def test_every_test_of_theirs_has_one_of_ours():
    asked = [ours for _, _, ours in (*flat(SAME), *flat(DIFFERENT))]
    named = {tuple(ours.split("::")) for ours in asked}
    assert {(file, name) for file, name in named if name not in functions_of(file)} == set()


def test_most_of_their_tests_have_the_same_outcome():
    same, different = flat(SAME), flat(DIFFERENT)
    assert {row[:2] for row in same}.isdisjoint({row[:2] for row in different})
    assert len(same) >= 92
    total = len(same) + len(different)
    counts = re.search(r"Of (\d+) tests .* SAM 2, (\d+) are\n.* the other (\d+) are", PAGE)
    assert tuple(map(int, counts.groups())) == (total, len(same), len(different))


def test_whatever_they_expect_otherwise_is_on_the_page():
    missing = [ours for _, _, ours in flat(DIFFERENT) if tuple(ours.split("::")) not in CITED]
    assert missing == []


def test_files_that_are_named_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)`", PAGE)
    assert len(named) >= 3
    assert [name for name in named if not (ROOT / name).exists()] == []
