"""``sam2-blocks models``: look at, download and verify models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Column, Table

from sam2_blocks.cli import screen
from sam2_blocks.cli.late import load_plugins
from sam2_blocks.cli.options import AsJson
from sam2_blocks.cli.screen import err, out, safe

if TYPE_CHECKING:
    from sam2_blocks.engine.plugins import Plugins
    from sam2_blocks.executors import KnownModel

models_app = typer.Typer(no_args_is_help=True, help="Look at, download and verify models.")


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models that are known by name, of every family, and which are on this machine."""
    from sam2_blocks.executor.weights.download import where_weights_are

    plugins = load_plugins()
    screen.warn_of_broken(plugins)
    models = {name: (model, where_weights_are(model)) for name, model in plugins.models.items()}
    if as_json:
        rows = [
            {"model": name, "family": model.family, "aliases": model.aliases, "weights": where}
            | {"url": model.url, "nbytes": model.nbytes, "sha256": model.sha256}
            for name, (model, where) in models.items()
        ]
        print(json.dumps(rows, indent=2))
        return
    table = Table(Column("model", overflow="fold"), "family", "weights", "size", "SHA-256")
    for name, (model, where) in models.items():
        size = f"{model.nbytes / 1e6:.0f} MB" if model.nbytes else ""
        table.add_row(*map(safe, (name, model.family, where, size, (model.sha256 or "")[:12])))
    out.print(table)


@models_app.command("download")
def download_model(
    model: Annotated[str, typer.Argument(help="A model, or a pipeline: all models it needs.")],
) -> None:
    """Download the weights of a model or a pipeline; an interrupted download is continued."""
    plugins = load_plugins()
    if Path(model).suffix in (".yaml", ".yml"):
        needed = plugins.model_names.needed_by(plugins.load_pipeline(Path(model)))
    elif is_download(model, plugins):
        needed = iter([model])
    else:
        needed = iter([plugins.model_names.get(model)])
    for known in needed:
        if isinstance(known, str) and is_download(known, plugins):
            _fetch(known, plugins)
        elif isinstance(known, str):
            out.print(f"{safe(known)} is loaded by its family, there is nothing to download")
        elif known.embedded:
            out.print(f"{known.full_name}: {known.weights}, there is nothing to download")
        else:
            _download(known)


def is_download(model: str, plugins: Plugins) -> bool:
    """Whether a name that is in no catalogue is one of a hub."""
    from sam2_blocks.engine.resources import family_of

    family = family_of(model, plugins.executors)
    return plugins.executors[family].is_download(model.removeprefix(f"{family}:"))


def _fetch(model: str, plugins: Plugins) -> None:
    """Download a repository: of SAM 2 the checkpoint alone."""
    from sam2_blocks.engine.resources import family_of
    from sam2_blocks.executor.weights.hub import fetch_repository
    from sam2_blocks.executor.weights.names import HubName, read_name
    from sam2_blocks.executor.weights.places import find_checkpoint
    from sam2_blocks.values import DEFAULT_FAMILY

    family = family_of(model, plugins.executors)
    bare = model.removeprefix(f"{family}:")
    named = read_name(bare)
    if family == DEFAULT_FAMILY or not isinstance(named, HubName):
        path = find_checkpoint(bare, offline=False)
    else:
        path = fetch_repository(named, offline=False)
    out.print(safe(path), soft_wrap=True)


def _download(model: KnownModel) -> None:
    from sam2_blocks.executor.weights.download import ensure_weights

    with Progress(console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(model.full_name, total=model.nbytes)
        path = ensure_weights(
            model,
            offline=False,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    out.print(safe(path), soft_wrap=True)


@models_app.command("verify")
def verify_model(model: str) -> None:
    """Check size and SHA-256 of a model's weights on this machine."""
    from sam2_blocks.executor.weights.download import verify

    path = verify(load_plugins().model_names.get(model))
    out.print(f"{safe(path)} is the published file", soft_wrap=True)
