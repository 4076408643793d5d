"""Pages of the site that are made from the code: a hook of mkdocs, see ``mkdocs.yml``.

Blocks come from their manifests, Python from docstrings, the command line from typer, HTTP from
OpenAPI, and the benchmarks from ``benchmarks/README.md``. None of it is written twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sam2_blocks
from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.language.reference import block_table, describe

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the picture of the benchmarks."""
    from mkdocs.structure.files import File

    for name, text in generated_pages().items():
        files.append(File.generated(config, name, content=text))
    for picture in sorted((ROOT / "benchmarks" / "results").glob("*.png")):
        files.append(
            File.generated(config, f"results/{picture.name}", content=picture.read_bytes())
        )
    return files


def generated_pages() -> dict[str, str]:
    """Text of every generated page, by its place under ``docs/``."""
    return {
        "reference/blocks.md": blocks_page(),
        "reference/python.md": python_page(),
        "reference/command-line.md": command_page(),
        "reference/http.md": http_page(),
        "benchmarks.md": benchmarks_page(),
    }


def blocks_page() -> str:
    """Every block, from its manifest."""
    manifests = load_plugins(strict=True, points=[]).manifests
    pages = "\n\n".join(describe(manifests[name]) for name in sorted(manifests))
    deeper = re.sub(r"^#", "##", pages, flags=re.M)
    return f"# Blocks\n\n{block_table(manifests.values())}\n\n{deeper}\n"


def python_page() -> str:
    """Every public name; mkdocstrings fills in the docstrings."""
    places = public_places()
    names = "\n\n".join(
        f"::: {places[name]}\n    options: {{heading: {name}, toc_label: {name}}}"
        for name in sorted(sam2_blocks.__all__)
    )
    intro = (
        "What `sam2_blocks` lists in `__all__` is public, and so is `sam2_blocks.testing`; the "
        "rest may change. The examples have imported the names they use from `sam2_blocks`."
    )
    return f"# Python\n\n{intro}\n\n{names}\n\n# For tests\n\n::: sam2_blocks.testing\n"


def public_places() -> dict[str, str]:
    """Where each public name is defined, as the package's stub says."""
    stub = (ROOT / "sam2_blocks" / "__init__.pyi").read_text(encoding="utf-8")
    found = re.findall(r"^from \.(\S+) import (\w+) as (\w+)$", stub, re.M)
    places = {public: f"sam2_blocks.{module}.{name}" for module, name, public in found}
    return places | {"load_executor": "sam2_blocks.executor.load"}  # its name at the top


def command_page() -> str:
    """Every command with its options, from typer."""
    from typer.main import get_command

    from sam2_blocks.cli.app import app

    text = "\n".join(_command(get_command(app), "sam2-blocks"))
    return (
        f"# Command line\n\n[Exit codes](exit-codes.md) are the same for all commands.\n\n{text}\n"
    )


def _command(command: Any, path: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for name, inner in sorted(command.commands.items()):
            yield from _command(inner, f"{path} {name}")
        return
    yield f"## `{path}`\n\n{command.help or ''}\n"
    rows = [_option(parameter) for parameter in command.params if parameter.name != "help"]
    if rows:
        yield "\n".join(["| option | default | does |", "|---|---|---|", *rows, ""])


def _option(parameter: Any) -> str:
    argument = parameter.param_type_name == "argument"
    name = parameter.name.upper() if argument else ", ".join(parameter.opts)
    default = parameter.default
    shown = "" if default is None or callable(default) else str(getattr(default, "value", default))
    if parameter.required:
        shown = "*needed*"
    variable = f" (`{parameter.envvar}`)" if getattr(parameter, "envvar", None) else ""
    told = (getattr(parameter, "help", "") or "").replace("|", "\\|")
    return f"| `{name}` | {shown} | {told}{variable} |"


def http_page() -> str:
    """Every route of the service, from its OpenAPI page."""
    paths = openapi()["paths"]
    rows = [
        f"| `{method.upper()} {path}` | {operation.get('summary', '')} |"
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]
    details = "\n\n".join(
        f"## `{method.upper()} {path}`\n\n{operation.get('description', '')}\n\n"
        + _answers(operation)
        for path, methods in paths.items()
        for method, operation in methods.items()
    )
    table = "\n".join(["| route | answers |", "|---|---|", *rows])
    intro = (
        "[Serve over HTTP](../hosts/http.md) has examples; request and answer of each route are on "
        "the server's own page, `/docs`."
    )
    return f"# HTTP\n\n{intro}\n\n{table}\n\n{details}\n"


def _answers(operation: Any) -> str:
    rows = [
        f"| {code} | {answer.get('description', '')} |"
        for code, answer in operation.get("responses", {}).items()
    ]
    return "\n".join(["| status | means |", "|---|---|", *rows])


def openapi() -> dict[str, Any]:
    """The service's OpenAPI document; `nano` needs no download."""
    from sam2_blocks.hosts.http import create_app
    from sam2_blocks.service import load_models
    from sam2_blocks.service.settings import ServiceSettings

    settings = ServiceSettings()
    models = load_models(["nano"], load_plugins(points=[]).executors, settings)
    document: dict[str, Any] = json.loads(json.dumps(create_app(models, settings).openapi()))
    return document


def benchmarks_page() -> str:
    """The README of the benchmarks; links to what the site has not become code."""
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    return re.sub(r"(?<!!)\[(`?[^\]]+`?)\]\(results/[^)]*\)", r"\1", text)
