"""``docs/``: every block of every page runs, links lead somewhere, lists are those of the code."""

from __future__ import annotations

import ast
import json
import re
import sys
from contextlib import nullcontext

import pytest
from ruamel.yaml import YAML

from sam2_blocks.cli import options
from sam2_blocks.engine.exporters import BUILTIN_EXPORTERS
from tests.conftest import ROOT
from tests.pages import SHOWN, blocks_of, own_port, run_page

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OWN_TESTS = {"hooks.md", "executors.md"}  # tests/test_hooks_docs.py
OF_HOSTS = {"hosts/roboflow.md"}  # tests/hosts/test_pages.py, where the engine is installed
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page):
    return page.relative_to(DOCS).as_posix()


TO_RUN = [
    page
    for page in PAGES
    if name_of(page) not in OWN_TESTS | OF_HOSTS
    and {block.language for block in blocks_of(page)} - SHOWN
]


@pytest.mark.parametrize("page", TO_RUN, ids=name_of)
def test_every_block_of_a_page_runs_in_order_in_one_shell(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    with own_port() if "sam2-blocks serve" in text else nullcontext():
        printed = run_page(page, tmp_path)
    answers = [float(found) for found in re.findall(r'"confidence":(0\.\d+)', printed)]
    assert all(found > 0.7 for found in answers), (
        "an example of the service has an implausible answer"
    )
    assert len(answers) == (4 if name_of(page) == "hosts/http.md" else 0)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_of_known_languages_and_parse(page):
    for block in blocks_of(page):
        assert block.language in SHOWN | {"bash", "python", "yaml", "json", "toml"}
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "yaml":
            YAML(typ="safe", pure=True).load(block.text)
        elif block.language == "toml" and sys.version_info >= (3, 11):
            import tomllib

            tomllib.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_hides_from_the_tests(page):
    """One that is indented instead of fenced is not run."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert not re.findall(r"^ {4}(?:pip|python3?|sam2-blocks|curl|export) .*", text, re.M)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_row_belongs_to_a_table(page):
    """A row after an empty line is shown as the text it is."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for first, second in re.findall(r"(?<=\n\n)(\|.*)\n(.*)", text):
        assert re.fullmatch(r"\|[-|: ]+\|", second), first


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=str)
def test_links_lead_to_files_that_exist(page):
    made = {"reference/blocks.md", "reference/python.md", "reference/command-line.md"}
    made |= {"reference/http.md", "benchmarks.md"}  # tools/site_pages.py
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path = (page.parent / link.partition("#")[0]).resolve()
        if "://" not in link and path not in {DOCS / name for name in made}:
            assert path.exists(), link


def test_every_page_is_in_the_menu_of_the_site():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES:
        assert f": {name_of(page)}\n" in text, name_of(page)


def table_of(page):
    """What the first cells of a page's tables name in code."""
    rows = (DOCS / "reference" / page).read_text(encoding="utf-8").splitlines()
    cells = [row.split("|")[1] for row in rows if row.startswith("|")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_environment_variables_are_those_that_the_code_reads():
    named = re.compile(
        r"(SAM2_BLOCKS|SAM2_MAX|SAM2_VERSION|DISABLE_SAM2|WORKFLOWS|TORCHINDUCTOR|LABEL_STUDIO)_[A-Z_]+"
    )
    sockets = {  # types of ComfyUI
        f"SAM2_BLOCKS_{name}" for name in ("DETECTIONS", "EMBEDDING", "KEYPOINTS", "PREDICTIONS")
    }
    found = set()
    for path in (ROOT / "sam2_blocks").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {match[0] for match in named.finditer(node.value)}
    assert {name.rstrip("_") for name in found} - sockets - {"SAM2_BLOCKS"} == table_of(
        "environment.md"
    )


def test_exit_codes_are_those_of_the_program():
    text = (DOCS / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    listed = [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)]
    codes = (options.ITEMS_FAILED, options.WRONG_INPUT, options.STOPPED, options.INTERRUPTED)
    assert listed == [0, *codes]


def test_formats_are_those_of_the_blocks_and_exporters(plugins):
    reads = set(plugins.manifests["detections/load@v1"].params["format"].enum)
    exports = {block for block in plugins.manifests if block.startswith("export/")}
    assert table_of("formats.md") == {"format"} | reads | exports | set(BUILTIN_EXPORTERS)
