"""Pages of documentation as scripts: every code block of a page runs, in order, in one shell.

- `bash` runs as it stands. Environments are not made, and only plugins are installed, into a
  folder: the tests' environment has the rest. `.ci/readme` runs the README with all of it.
- `python` runs in a process of its own: a reader copies one block, not all before it.
- `yaml` with a `pipeline_version` is checked.
- ``<!-- file: PATH -->`` before a block writes it there instead.
- ``<!-- needs: MODULE -->`` runs it only where that can be imported.
- ``<!-- not run: WHY -->`` never runs it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock

from tests.conftest import ROOT

FENCE = re.compile(
    r"(?:^<!-- (file|needs|not run): ?(.*?) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S
)
SHOWN = {"", "text", "diff"}
"""Languages of blocks that show something and cannot run."""

PRELUDE = """
set -euo pipefail
trap 'jobs -p | xargs -r kill 2>/dev/null || true; wait' EXIT
ROOT_OF_PAGE=$PWD
python3() {
  if [ "${1-} ${2-}" = "-m venv" ]; then mkdir -p "$3/bin"; : > "$3/bin/activate"
  else command python3 "$@"; fi
}
pip() {
  local what=${!#}
  what=${what%%[[]*}
  if [ -f "$what/pyproject.toml" ]; then
    command python -m pip install -q --no-index --no-deps --no-build-isolation --upgrade \
      --target "$ROOT_OF_PAGE/.installed" "$what"
  else echo "(left out: pip $*)"; fi
}
python() { # the tests of this repository would run these again
  if [ "$*" = "-m pytest" ] && [ "$PWD" = "$ROOT_OF_PAGE" ]; then echo "(left out: $*)"
  else command python "$@"; fi
}
"""


class CodeBlock(NamedTuple):
    """One fenced block, and what stands before it in a comment."""

    language: str
    text: str
    mark: str
    argument: str


def blocks_of(page: Path) -> list[CodeBlock]:
    """Every fenced block of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        CodeBlock(language, code, mark or "", argument or "")
        for mark, argument, language, code in FENCE.findall(text)
    ]


def script_of(page: Path) -> str:
    """The bash script that a page is."""
    return PRELUDE + "\n".join(_lines(block, n) for n, block in enumerate(blocks_of(page)))


def _lines(block: CodeBlock, number: int) -> str:
    if block.mark == "file":
        folder = os.path.dirname(block.argument) or "."
        return f"mkdir -p {folder}\n{_here(f'cat > {block.argument}', block.text, number)}"
    missing = block.mark == "needs" and importlib.util.find_spec(block.argument) is None
    if block.mark == "not run" or missing or block.language in SHOWN:
        return ""
    if block.language == "bash":
        return block.text
    if block.language == "python":
        return _here("command python -", block.text, number)
    if block.language == "yaml" and "pipeline_version" in block.text:
        name = f"shown-{number}.yaml"
        return f"{_here(f'cat > {name}', block.text, number)}\nsam2-blocks validate {name}"
    return ""


def _here(command: str, text: str, number: int) -> str:
    return f"{command} <<'END_OF_BLOCK_{number}'\n{text}END_OF_BLOCK_{number}\n"


def run_page(page: Path, folder: Path) -> str:
    """Run a page in a folder that looks like a clone; return what it printed.

    Raises:
        AssertionError: with the output, if a command failed.
    """
    for name in ("examples", "constraints.txt", "manifests"):
        (folder / name).symlink_to(ROOT / name)
    programs = folder / ".programs"
    programs.mkdir()
    own = (("python", ""), ("sam2-blocks", "-m sam2_blocks"), ("serve", "-m ray.serve.scripts"))
    for name, words in own:
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder / '.installed'}",
        "HOME": str(folder),
    }
    environment.pop("SAM2_BLOCKS_PLUGINS", None)
    done = subprocess.run(
        ["bash", "-c", script_of(page)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{page}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout


@contextmanager
def own_port(port: int = 9001) -> Iterator[None]:
    """While a page runs that starts a server at the port that its words name: one at a time.

    The test is skipped if another program listens there.
    """
    with FileLock(Path(tempfile.gettempdir(), f"sam2-blocks-tests-{port}.lock")):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"something else listens on port {port}")
        yield
