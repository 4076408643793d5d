"""``sam2-blocks init`` and ``sam2-blocks new``: files to start from."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from sam2_blocks.cli.late import load_plugins
from sam2_blocks.cli.screen import out, safe
from sam2_blocks.errors import UsageError, did_you_mean
from sam2_blocks.files.atomic import write_text

TEMPLATES = files("sam2_blocks.cli") / "templates"
BLOCK = re.compile(r"([a-z][a-z0-9_]*)/([a-z][a-z0-9_]*)")

new_app = typer.Typer(no_args_is_help=True, help="Make the files of something new.")


def pipeline_templates() -> dict[str, str]:
    """Text of each pipeline to start from, by name."""
    found = (TEMPLATES / "pipelines").iterdir()
    return {
        path.name.removesuffix(".yaml"): path.read_text(encoding="utf-8")
        for path in sorted(found, key=lambda path: path.name)
    }


NAMES = ", ".join(pipeline_templates())


def init(
    template: Annotated[str, typer.Argument(help=f"What to start from: {NAMES}.")] = "boxes",
    file: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path(
        "pipeline.yaml"
    ),
) -> None:
    """Write a commented pipeline to start from."""
    templates = pipeline_templates()
    if template not in templates:
        raise UsageError(f"no template {template!r}.{did_you_mean(template, templates)}")
    _refuse_existing(file)
    write_text(file, templates[template])
    commands = [line[2:] for line in templates[template].splitlines() if line.startswith("#   ")]
    shown = "\n".join(commands).replace("pipeline.yaml", str(file))
    out.print(f"{safe(file)}: read it, then\n{safe(shown)}", soft_wrap=True)


@new_app.command("block")
def new_block(
    block: Annotated[str, typer.Argument(help="What it is called: NAMESPACE/NAME.")],
    folder: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to write; sam2-blocks-NAMESPACE if not given."),
    ] = None,
) -> None:
    """Write a plugin with one block: manifest, class, tests, pyproject and a pipeline."""
    namespace, name = _parts_of(block)
    folder = folder or Path(f"sam2-blocks-{namespace.replace('_', '-')}")
    _refuse_existing(folder)
    for place, text in plugin_files(namespace, name).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / place, text)
    out.print(
        f"{safe(folder)} has the block {namespace}/{name}@v1. Next, in that folder:\n"
        "  pip install -e '.\\[dev]'\n"
        "  python -m pytest\n"
        "  sam2-blocks run pipeline.yaml --input PICTURE",
        soft_wrap=True,
    )


def plugin_files(namespace: str, name: str) -> dict[str, str]:
    """Text of each file of a plugin with one block, by its place in the folder."""
    package = f"sam2_blocks_{namespace}"
    words = {
        "__DISTRIBUTION__": f"sam2-blocks-{namespace.replace('_', '-')}",
        "__PACKAGE__": package,
        "__PLUGIN__": namespace,
        "__BLOCK__": f"{namespace}/{name}",
        "__CLASS__": "".join(part.capitalize() for part in name.split("_")),
        "__TITLE__": name.replace("_", " ").capitalize(),
        "__NAME__": name,
    }
    places = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "pipeline.yaml": "pipeline.yaml",
        f"{package}/__init__.py": "__init__.py",
        f"{package}/{name}.py": "block.py",
        f"{package}/manifests/{name}.yaml": "block.yaml",
        f"tests/test_{name}.py": "test_block.py",
    }
    made = {}
    for place, template in places.items():
        text = (TEMPLATES / "plugin" / f"{template}.template").read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        made[place] = text
    return made


def _parts_of(block: str) -> tuple[str, str]:
    found = BLOCK.fullmatch(block.removesuffix("@v1"))
    if not found or keyword.iskeyword(found[2]):
        raise UsageError(
            f"{block!r} wants NAMESPACE/NAME in small letters, digits and _, such as my/gamma; "
            "a word of Python's own is no name."
        )
    namespace, name = found.groups()
    manifests = load_plugins().manifests
    if f"{namespace}/{name}@v1" in manifests:
        raise UsageError(f"there is a block {namespace}/{name}@v1 already; choose another name.")
    return namespace, name


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} is there already; give another one with --out.")
