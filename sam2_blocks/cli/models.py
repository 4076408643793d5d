"""``sam2-blocks models``: look at, download, verify, calibrate and compile models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from pydantic_core import to_jsonable_python
from rich.progress import Progress
from rich.table import Column, Table

from sam2_blocks.cli import screen
from sam2_blocks.cli.late import load_plugins
from sam2_blocks.cli.options import ITEMS_FAILED, AsJson
from sam2_blocks.cli.screen import err, out, safe
from sam2_blocks.errors import ModelError

if TYPE_CHECKING:
    from sam2_blocks.engine.plugins import Plugins
    from sam2_blocks.executor.sam2.calibrate import Outcome
    from sam2_blocks.executor.sam2.model import LoadedModel
    from sam2_blocks.executors import KnownModel

models_app = typer.Typer(
    no_args_is_help=True, help="Look at, download, verify, calibrate and compile models."
)


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


@models_app.command("calibrate")
def calibrate_model(
    model: Annotated[str, typer.Argument(help="A model of SAM 2, or a checkpoint.")],
    pictures: Annotated[
        Path,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of pictures like those the model shall see; 20 are enough.",
        ),
    ],
    input_px: Annotated[
        int, typer.Option(min=0, help="Side of the square it sees; 0 is what it was trained with.")
    ] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Keep it although its masks or speed fail.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure int8 on a CPU on your own pictures, and keep it where it pays.

    Every other picture gives the ranges of what the layers read; on the rest, speed and masks are
    compared with float32. What is kept is used by dtype int8 and mode fast.
    """
    from sam2_blocks.executor.sam2.calibrate import calibrate
    from sam2_blocks.runs.sources.folder import list_pictures

    found = list(list_pictures([str(pictures)]).values())
    outcome = calibrate(model, found, input_px=input_px, force=force)
    if as_json:
        print(json.dumps(to_jsonable_python(outcome), indent=2))
    else:
        _show(outcome)
    if outcome.path is None:
        raise typer.Exit(ITEMS_FAILED)


def _show(outcome: Outcome) -> None:
    """Print speed and masks of each way, and what became of it."""
    table = Table("", "ms", "processor ms", "mean IoU", "first percentile", "flipped pixels")
    for row in outcome.rows:
        times = f"{row.ms:,.1f}", f"{row.cpu_ms:,.1f}"
        table.add_row(
            row.name, *times, f"{row.mean_iou:.4f}", f"{row.p1_iou:.3f}", f"{row.flipped:.3%}"
        )
    out.print(table)
    out.print(
        f"{outcome.masks} masks on {outcome.held_out} pictures, calibrated on {outcome.pictures} "
        "others."
    )
    for problem in outcome.problems:
        out.print(f"int8: {problem}.")
    if outcome.path is None:
        out.print("Nothing is kept; --force would keep it.")
    else:
        out.print(f"Kept for dtype int8 and mode fast: {safe(outcome.path)}", soft_wrap=True)


@models_app.command("compile")
def compile_model(
    model: Annotated[str, typer.Argument(help="A model of SAM 2, or a checkpoint.")],
    mode: Annotated[str, typer.Option(help="How it computes; strict is never compiled.")] = "fast",
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16 or float16; see mode.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:N or cpu.")] = "auto",
    input_px: Annotated[
        int, typer.Option(min=0, help="Side of the square it sees; 0 is what it was trained with.")
    ] = 0,
    batches: Annotated[
        str, typer.Option(help="Pictures at once, such as 1,4; other numbers are split.")
    ] = "1",
) -> None:
    """Compile the image encoder for this machine, once for all processes.

    Takes minutes for a large model; afterwards compile="encoder" or "all" loads it in seconds.
    The packages lie in the folder of SAM2_BLOCKS_CACHE; they hold code and no weights.
    """
    from sam2_blocks.executor.device.packaging import remove_leftovers
    from sam2_blocks.executor.sam2.packaging import check_batches, load_for_packages

    sizes = check_batches(_read_sizes(batches))
    loaded = load_for_packages(
        model, device=device, dtype=dtype, mode=cast("Any", mode), input_px=input_px
    )
    spec = loaded.spec
    out.print(safe(f"{spec.model}: the image encoder in {spec.dtype} for {spec.device}"))
    try:
        for size in sizes:
            _compile(loaded, size)
    finally:
        remove_leftovers()
    out.print('Used by compile="encoder" and "all", as by sam2-blocks serve --compile encoder.')


def _compile(loaded: LoadedModel, size: int) -> None:
    from sam2_blocks.executor.sam2.packaging import package_encoder

    with err.status(f"compiling for batches of {size}"):
        made = package_encoder(loaded, size)
    how = f"compiled in {made.seconds:.1f} s" if made.seconds else "was there"
    out.print(
        f"batches of {size}: {how}, {made.nbytes / 1e6:.1f} MB, features within "
        f"{made.difference:.2%} of torch: {safe(made.path)}",
        soft_wrap=True,
    )


def _read_sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise ModelError(
            f"--batches wants numbers of pictures with commas between, such as 1,4, got {text!r}."
        ) from None
