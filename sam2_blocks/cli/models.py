"""``sam2-blocks models``: look at, download and verify models."""

from __future__ import annotations

import typer
from rich.progress import Progress
from rich.table import Table

from sam2_blocks.cli.screen import err, out, safe

models_app = typer.Typer(no_args_is_help=True, help="Look at, download and verify models.")


@models_app.command("list")
def list_models() -> None:
    """List the models we know, and which are on this machine."""
    from sam2_blocks.executor.weights.catalogue import MODELS
    from sam2_blocks.executor.weights.download import weights_path

    table = Table("model", "weights", "size", "SHA-256")
    for name, spec in MODELS.items():
        here = "in the package" if spec.embedded else "downloaded"
        if not spec.embedded and not weights_path(spec).exists():
            here = "to download"
        size = f"{spec.nbytes / 1e6:.0f} MB" if spec.nbytes else ""
        table.add_row(name, here, size, (spec.sha256 or "")[:12])
    out.print(table)


@models_app.command("download")
def download_model(model: str) -> None:
    """Download a model's weights; an interrupted download is continued."""
    from sam2_blocks.executor.weights.catalogue import find_model
    from sam2_blocks.executor.weights.download import ensure_weights

    spec = find_model(model)
    if spec.embedded:
        out.print(f"{spec.name} ships in the package, there is nothing to download")
        return
    with Progress(console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(spec.name, total=spec.nbytes)
        path = ensure_weights(
            spec,
            offline=False,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    out.print(safe(path), soft_wrap=True)


@models_app.command("verify")
def verify_model(model: str) -> None:
    """Check size and SHA-256 of a model's weights on this machine."""
    from sam2_blocks.executor.weights.catalogue import find_model
    from sam2_blocks.executor.weights.download import verify

    path = verify(find_model(model))
    out.print(f"{safe(path)} is the published file", soft_wrap=True)
