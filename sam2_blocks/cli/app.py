"""``sam2-blocks``: run and check pipelines, look at blocks, models, plugins and hosts.

Exit codes: 0 everything succeeded; 1 some items failed, the others are written; 2 the command,
the pipeline or a manifest is wrong; 3 a model, plugin or file stopped the run; 130 interrupted,
what was finished is kept.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer
from PIL import Image as Pil
from rich.table import Table

from sam2_blocks import __version__
from sam2_blocks.cli import INTERRUPTIONS, screen
from sam2_blocks.cli.click import click
from sam2_blocks.cli.graph import graph as draw_graph
from sam2_blocks.cli.late import load_plugins
from sam2_blocks.cli.merge import merge
from sam2_blocks.cli.models import models_app
from sam2_blocks.cli.options import (
    INTERRUPTED,
    STOPPED,
    WRONG_INPUT,
    AsJson,
    PipelineFile,
    Strict,
)
from sam2_blocks.cli.run import run
from sam2_blocks.cli.screen import out, safe
from sam2_blocks.cli.serve import serve
from sam2_blocks.cli.starters import init, new_app
from sam2_blocks.errors import DocumentError, Sam2BlocksError, UsageError, did_you_mean, is_full

MAKE_ROOM = "Make room and try again; run --resume goes on from what is finished."
MARKS = {"ok": "[green]ok[/]  ", "warning": "[yellow]note[/]", "bad": "[red]bad[/] "}

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Workflow blocks for Segment Anything 2. Add --debug to any command for tracebacks.",
)
blocks_app = typer.Typer(no_args_is_help=True, help="Look at the blocks.")
plugins_app = typer.Typer(no_args_is_help=True, help="Look at the plugins.")
hosts_app = typer.Typer(no_args_is_help=True, help="Look at the hosts our blocks run inside.")
app.add_typer(blocks_app, name="blocks")
app.add_typer(models_app, name="models")
app.add_typer(plugins_app, name="plugins")
app.add_typer(hosts_app, name="hosts")

app.add_typer(new_app, name="new")

app.command(context_settings={"allow_extra_args": True})(run)
app.command()(init)
app.command()(merge)


@app.command()
def validate(
    pipeline: PipelineFile,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the kinds along every wire.")
    ] = False,
    strict_plugins: Strict = False,
) -> None:
    """Check a pipeline without loading a model."""
    plugins = load_plugins(strict=strict_plugins)
    screen.warn_of_broken(plugins)
    graph = plugins.load_pipeline(pipeline)
    for warning in graph.warnings:
        screen.print_warning(warning.render(graph.source))
    for known in plugins.model_names.needed_by(graph):
        name = known if isinstance(known, str) else known.full_name
        out.print(f"it needs the model {safe(name)}", soft_wrap=True)
    if explain:
        from sam2_blocks.language.graph import explain as wires_of

        for line in wires_of(graph):
            out.print(safe(line), soft_wrap=True)
    steps = " → ".join(step.id for step in graph.steps)
    out.print(f"{safe(pipeline)} is valid: {steps}", soft_wrap=True)


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


app.command("graph")(draw_graph)
app.command()(serve)
app.command()(click)


@app.command()
def doctor() -> None:
    """Show what a bug report needs, suggest what to install, and segment a picture."""
    from sam2_blocks.cli.doctor import diagnose

    healthy = True
    for finding in diagnose():
        out.print(f"{MARKS[finding.state]} {finding.name:<12} {safe(finding.text)}", soft_wrap=True)
        healthy &= finding.state != "bad"
    if not healthy:
        raise typer.Exit(STOPPED)


@blocks_app.command("list")
def list_blocks(as_json: AsJson = False) -> None:
    """List every block."""
    plugins = load_plugins()
    screen.warn_of_broken(plugins)
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
        screen.warn_of_broken(plugins)
        raise UsageError(f"no block {block!r}.{did_you_mean(block, manifests)}")
    print(describe(manifests[block]))


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
            f"[red]broken: {safe(record.error)}[/]" if record.error else ", ".join(record.blocks)
        )
        table.add_row(record.name, f"{record.distribution} {record.version}".strip(), brings)
    out.print(table)


@hosts_app.command("list")
def list_hosts(as_json: AsJson = False) -> None:
    """List hosts, which blocks each gets, and why one is left out."""
    plugins = load_plugins()
    screen.warn_of_broken(plugins)
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
        renamed = {block: name for block, name in report.blocks.items() if block != name}
        if len(renamed) < len(report.blocks):
            table.add_row(f"{len(report.blocks) - len(renamed)} blocks", "their own names")
        for block, name in renamed.items():
            table.add_row(block, name)
        for block, reason in report.left_out.items():
            table.add_row(block, f"[yellow]left out: {safe(reason)}[/]")
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


def main() -> None:
    """Run the program: turns our errors into one readable block and an exit code."""
    screen.set_up()
    warnings.simplefilter("ignore", Pil.DecompressionBombWarning)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments)
    except SystemExit as stop:
        if isinstance(stop.__context__, typer.Abort):  # its way to say Ctrl-C
            sys.exit(INTERRUPTED)
        raise
    except (Sam2BlocksError, OSError) as error:
        if debug:
            raise
        screen.print_error(error if not is_full(error) else f"{error}. {MAKE_ROOM}")
        wrong_input = isinstance(error, DocumentError | UsageError)
        sys.exit(WRONG_INPUT if wrong_input else STOPPED)
    except Exception as error:
        if debug:
            raise
        if INTERRUPTIONS.came:  # in code that made another error of it, as that of pydantic does
            _say_interrupted()
        what = f"unexpected {type(error).__name__}: {error}. Please report it with --debug."
        screen.print_error(what)
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        _say_interrupted()


def _say_interrupted() -> NoReturn:
    screen.err.print("[red]interrupted[/]")
    sys.exit(INTERRUPTED)
