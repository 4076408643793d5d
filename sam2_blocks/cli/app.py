"""``sam2-blocks``: run and check pipelines, look at blocks, models, plugins and hosts.

Exit codes: 0 everything succeeded; 1 some items failed, the others are written; 2 the command,
the pipeline or a manifest is wrong; 3 a model, plugin or file stopped the run; 130 interrupted,
what was finished is kept.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image as Pil
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from sam2_blocks import __version__
from sam2_blocks.cli.serve import serve
from sam2_blocks.engine.plugins import Plugins, load_plugins
from sam2_blocks.engine.runner import ErrorRecord, ItemResult, Runner
from sam2_blocks.errors import DocumentError, Sam2BlocksError, UsageError, did_you_mean
from sam2_blocks.executors import KnownModel
from sam2_blocks.files.claims import OutputFiles
from sam2_blocks.formats.images import MAX_PIXELS
from sam2_blocks.language.pipeline import Pipeline
from sam2_blocks.runs.journal import Journal
from sam2_blocks.runs.sinks.folder import OutputFolder
from sam2_blocks.runs.sources.folder import find_pictures, make_items, parse_settings

ITEMS_FAILED, WRONG_INPUT, STOPPED, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Workflow blocks for Segment Anything 2. Add --debug to any command for tracebacks.",
)
blocks_app = typer.Typer(no_args_is_help=True, help="Look at the blocks.")
models_app = typer.Typer(no_args_is_help=True, help="Look at, download and verify models.")
plugins_app = typer.Typer(no_args_is_help=True, help="Look at the plugins.")
hosts_app = typer.Typer(no_args_is_help=True, help="Look at the hosts our blocks run inside.")
app.add_typer(blocks_app, name="blocks")
app.add_typer(models_app, name="models")
app.add_typer(plugins_app, name="plugins")
app.add_typer(hosts_app, name="hosts")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

PipelineFile = Annotated[Path, typer.Argument(help="Pipeline, a YAML file.", show_default=False)]
Strict = Annotated[bool, typer.Option("--strict-plugins", help="A broken plugin is an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(
    pipeline: PipelineFile,
    source: Annotated[str, typer.Option("--input", "-i", help="Picture, folder or glob.")],
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("out"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="Value of a pipeline input."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip pictures that an earlier run finished.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per micro-batch.")] = 8,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write a Chrome trace, for Perfetto."),
    ] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest picture read.")] = MAX_PIXELS,
    strict_plugins: Strict = False,
) -> None:
    """Run a pipeline on pictures and write its outputs."""
    Pil.MAX_IMAGE_PIXELS = max_pixels  # a program of our own may set what a library must not
    plugins = load_plugins(strict=strict_plugins)
    _warn_of_broken(plugins)
    graph = _load(pipeline, plugins)
    values = parse_settings(settings or [], graph)
    pictures = find_pictures(source, folder)
    nested = list(pictures.values()) != [Path(source)]
    if resume and not nested:
        raise UsageError("--resume is for folders and globs; run a single picture without it.")
    journal = Journal(folder, graph, source, settings or [], resume=resume) if nested else None
    files = OutputFiles(folder)
    if journal:
        found, pictures = len(pictures), journal.plan(pictures)
        files = OutputFiles(folder, kept=journal.kept, shared_before=journal.shared)
        if journal.kept:
            out.print(f"{len(journal.kept)} of {found} were done before")
    items = make_items(graph, pictures, values, max_pixels=max_pixels)
    target = OutputFolder(folder, graph, plugins, nested=nested, files=files, journal=journal)
    for name in target.skipped:
        err.print(f"[yellow]note:[/] output {name!r} has no file format and is not written")
    recorder = _start_trace(plugins) if trace else None
    errors: list[ErrorRecord] = []
    finished = 0
    screen = out if out.is_terminal else err
    try:
        with (
            target,
            Runner(
                graph, plugins, resources=plugins.resources(files=files), batch_size=batch_size
            ) as runner,
            Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress,
        ):
            task = progress.add_task("running", total=len(pictures))
            for result in runner.run(items):
                target.submit(result)
                finished += 1
                errors += result.errors
                progress.advance(task)
                _print_result(result, brief=len(pictures) > 1)
    except KeyboardInterrupt:
        kept = f"after {finished} of {len(pictures)}; they are in {folder}"
        err.print(f"[red]interrupted[/] {escape(kept)}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for error in target.errors:
            _print_error(error)
        errors += target.errors
        if errors:
            target.write_errors(errors)
        if recorder and trace:
            recorder.write(trace)
    done = finished - len({error.item for error in errors})
    summary = f"{done} of {len(pictures)} done" if pictures else "nothing is left to do"
    _print(f"{summary}, in {escape(str(folder))}")
    if errors:
        raise typer.Exit(ITEMS_FAILED)


@app.command()
def validate(pipeline: PipelineFile, strict_plugins: Strict = False) -> None:
    """Check a pipeline without loading a model."""
    plugins = load_plugins(strict=strict_plugins)
    _warn_of_broken(plugins)
    graph = _load(pipeline, plugins)
    for known in plugins.model_names.needed_by(graph):
        name = known if isinstance(known, str) else known.full_name
        out.print(f"it needs the model {escape(name)}", soft_wrap=True)
    steps = " → ".join(step.id for step in graph.steps)
    out.print(f"{escape(str(pipeline))} is valid: {steps}", soft_wrap=True)


@app.command()
def schema(
    which: Annotated[str, typer.Argument(help="pipeline or manifest.")] = "pipeline",
) -> None:
    """Print the JSON Schema that completes YAML in an editor."""
    from sam2_blocks.language.schema import manifest_schema, pipeline_schema

    makers: dict[str, Any] = {
        "manifest": manifest_schema,
        "pipeline": lambda: pipeline_schema(load_plugins().manifests.values()),
    }
    if which not in makers:
        raise UsageError(f"no schema of {which!r}.{did_you_mean(which, makers)}")
    print(json.dumps(makers[which](), indent=2))


app.command()(serve)


@app.command()
def doctor() -> None:
    """Show versions and devices, and time a small segmentation."""
    from sam2_blocks.cli.doctor import diagnose

    healthy = True
    for finding in diagnose():
        mark = "[green]ok[/]  " if finding.ok else "[red]bad[/] "
        out.print(f"{mark} {finding.name:<12} {escape(finding.text)}", soft_wrap=True)
        healthy &= finding.ok
    if not healthy:
        raise typer.Exit(STOPPED)


@blocks_app.command("list")
def list_blocks(as_json: AsJson = False) -> None:
    """List every block."""
    plugins = load_plugins()
    _warn_of_broken(plugins)
    manifests = [plugins.manifests[name] for name in sorted(plugins.manifests)]
    if as_json:
        rows = [
            manifest.model_dump(mode="json", exclude_defaults=True, by_alias=True)
            for manifest in manifests
        ]
        print(json.dumps(rows, indent=2))
        return
    table = Table("block", "summary")
    for manifest in manifests:
        table.add_row(manifest.id, manifest.summary)
    out.print(table)


@blocks_app.command("show")
def show_block(block: str) -> None:
    """Show inputs, parameters and outputs of one block."""
    from sam2_blocks.language.reference import describe

    plugins = load_plugins()
    manifests = plugins.manifests
    if block not in manifests:
        _warn_of_broken(plugins)
        raise UsageError(f"no block {block!r}.{did_you_mean(block, manifests)}")
    print(describe(manifests[block]))


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models that are known by name, of every family, and which are on this machine."""
    from sam2_blocks.executor.weights.download import where_weights_are

    plugins = load_plugins()
    _warn_of_broken(plugins)
    models = {name: (model, where_weights_are(model)) for name, model in plugins.models.items()}
    if as_json:
        rows = [
            {"model": name, "family": model.family, "aliases": model.aliases, "weights": where}
            | {"url": model.url, "nbytes": model.nbytes, "sha256": model.sha256}
            for name, (model, where) in models.items()
        ]
        print(json.dumps(rows, indent=2))
        return
    table = Table("model", "family", "weights", "size", "SHA-256")
    for name, (model, where) in models.items():
        size = f"{model.nbytes / 1e6:.0f} MB" if model.nbytes else ""
        table.add_row(*map(escape, (name, model.family, where, size, (model.sha256 or "")[:12])))
    out.print(table)


@models_app.command("download")
def download_model(
    model: Annotated[str, typer.Argument(help="A model, or a pipeline: all models it needs.")],
) -> None:
    """Download the weights of a model or a pipeline; an interrupted download is continued."""
    plugins = load_plugins()
    if Path(model).suffix in (".yaml", ".yml"):
        needed = plugins.model_names.needed_by(_load(Path(model), plugins))
    else:
        needed = iter([plugins.model_names.get(model)])
    for known in needed:
        if isinstance(known, str):
            out.print(f"{escape(known)} is loaded by its family, there is nothing to download")
        elif known.embedded:
            out.print(f"{known.full_name}: {known.weights}, there is nothing to download")
        else:
            _download(known)


def _download(model: KnownModel) -> None:
    from sam2_blocks.executor.weights.download import ensure_weights

    with Progress(console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(model.full_name, total=model.nbytes)
        path = ensure_weights(
            model,
            offline=False,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    out.print(escape(str(path)), soft_wrap=True)


@models_app.command("verify")
def verify_model(model: str) -> None:
    """Check size and SHA-256 of a model's weights on this machine."""
    from sam2_blocks.executor.weights.download import verify

    path = verify(load_plugins().model_names.get(model))
    out.print(f"{escape(str(path))} is the published file", soft_wrap=True)


@plugins_app.command("list")
def list_plugins(as_json: AsJson = False, strict_plugins: Strict = False) -> None:
    """List plugins, what they brought, and why one is broken."""
    records = load_plugins(strict=strict_plugins).records
    if as_json:
        print(json.dumps([vars(record) for record in records], indent=2))
        return
    table = Table("plugin", "package", "brings")
    for record in records:
        brings = (
            f"[red]broken: {escape(record.error)}[/]" if record.error else ", ".join(record.blocks)
        )
        table.add_row(record.name, f"{record.distribution} {record.version}".strip(), brings)
    out.print(table)


@hosts_app.command("list")
def list_hosts(as_json: AsJson = False) -> None:
    """List hosts, which blocks each gets, and why one is left out."""
    plugins = load_plugins()
    _warn_of_broken(plugins)
    reports = plugins.host_reports()
    if as_json:
        keys = ("title", "installed", "how", "blocks", "left_out")
        rows = [{key: getattr(report, key) for key in keys} for report in reports]
        print(json.dumps(rows, indent=2))
        return
    for report in reports:
        found = report.installed or "not installed"
        out.print(f"{report.title} ({found}): {report.how}", soft_wrap=True)
        table = Table("block", "there")
        for block, name in report.blocks.items():
            table.add_row(block, name)
        for block, reason in report.left_out.items():
            table.add_row(block, f"[yellow]left out: {escape(reason)}[/]")
        out.print(table)


def _version(asked: bool) -> None:
    if asked:
        print(f"sam2-blocks {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _load(path: Path, plugins: Plugins) -> Pipeline:
    graph = plugins.load_pipeline(path)
    for warning in graph.warnings:
        err.print(f"[yellow]warning:[/] {escape(warning.render(graph.source))}", soft_wrap=True)
    return graph


def _warn_of_broken(plugins: Plugins) -> None:
    for record in plugins.records:
        if record.error:
            message = f"plugin {record.name!r} is broken and skipped: {record.error}"
            err.print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)


def _start_trace(plugins: Plugins) -> Any:
    from sam2_blocks.engine.trace import TraceRecorder

    recorder = TraceRecorder()
    plugins.manager.register(recorder)
    return recorder


def _print_error(error: ErrorRecord) -> None:
    where = f"{error.item}, step {error.step!r}" if error.block else error.item
    err.print(f"[red]failed:[/] {escape(where)}: {escape(error.message)}", soft_wrap=True)


def _print_result(result: ItemResult, *, brief: bool) -> None:
    """Print a table of every output with detections, or their number if there are many pictures."""
    from sam2_blocks.cli.tables import count_detections, detections_table

    for error in result.errors:
        _print_error(error)
    for name, value in result.outputs.items():
        title = f"{result.id}: {name}"
        count = count_detections(value)
        if count is not None:
            _print(escape(f"{title}: {count}") if brief else detections_table(value, title))


def _print(what: Any) -> None:
    """Print to stdout as long as somebody reads it; the work goes on without."""
    try:
        out.print(what, soft_wrap=isinstance(what, str))
    except (BrokenPipeError, SystemExit):  # rich leaves by SystemExit
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    err.print(f"[yellow]warning:[/] {escape(str(message))}", soft_wrap=True)


def main() -> None:
    """Entry point: turns our errors into one readable block and an exit code."""
    warnings.filterwarnings("ignore", "OpenCV .* is not installed", UserWarning)
    warnings.showwarning = _show_warning
    warnings.simplefilter("ignore", Pil.DecompressionBombWarning)
    warnings.filterwarnings("always", category=UserWarning, module="sam2_blocks")
    # Schedulers stop a job by SIGTERM: keep what is finished then, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except (Sam2BlocksError, OSError) as error:
        if len(arguments) < len(sys.argv) - 1:
            raise
        err.print("[red]error:[/]", escape(str(error)), soft_wrap=True)
        wrong_input = isinstance(error, DocumentError | UsageError)
        sys.exit(WRONG_INPUT if wrong_input else STOPPED)
    except Exception as error:
        if len(arguments) < len(sys.argv) - 1:
            raise
        what = f"unexpected {type(error).__name__}: {error}. Please report it with --debug."
        err.print(f"[red]error:[/] {escape(what)}", soft_wrap=True)
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        err.print("[red]interrupted[/]")
        sys.exit(INTERRUPTED)
