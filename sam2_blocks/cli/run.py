"""``sam2-blocks run``: options → `run_pipeline`, results → screen."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from PIL import Image as Pil
from rich.progress import Progress

from sam2_blocks.cli import on_ray, screen
from sam2_blocks.cli.late import import_supervision, load_plugins
from sam2_blocks.cli.options import INTERRUPTED, PipelineFile, Strict, use_backend
from sam2_blocks.cli.screen import err, out, safe, safe_name
from sam2_blocks.cli.summary import sum_up
from sam2_blocks.errors import SourceError, UsageError, did_you_mean
from sam2_blocks.formats.images import MAX_PIXELS

if TYPE_CHECKING:
    from sam2_blocks.clock import Clock
    from sam2_blocks.engine.plugins import Plugins
    from sam2_blocks.engine.records import ItemResult
    from sam2_blocks.language.pipeline import Pipeline
    from sam2_blocks.runs.report import Report
    from sam2_blocks.runs.run import Run


class Form(str, Enum):
    """How results are written."""

    FOLDER = "folder"
    PARQUET = "parquet"


class Where(str, Enum):
    """Where a run is, if not in this process."""

    RAY = "ray"


class Names(str, Enum):
    """What the results of an item are called."""

    ID = "id"
    STEM = "stem"


class Pictures(str, Enum):
    """How pictures that are outputs are written."""

    PNG = "png"
    JPG = "jpg"


def run(
    context: typer.Context,
    pipeline: PipelineFile,
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            "-i",
            help="Picture, folder, quoted pattern, video, list, table, COCO file, tar or URL; may "
            "be repeated.",
        ),
    ],
    folder: Annotated[str, typer.Option("--out", "-o", help="Folder or URL to write to.")] = "out",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="Value of a pipeline input."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Value of the pipeline input 'model'.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Value of the pipeline input 'device'.")
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="Value of the pipeline input 'backend' if it has one, else what all steps that "
            "say nothing else compute with on a CPU: torch, openvino or auto."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip pictures that an earlier run finished.")
    ] = False,
    retry_set_aside: Annotated[
        bool,
        typer.Option("--retry-set-aside", help="Run pictures again that killed the process twice."),
    ] = False,
    names: Annotated[
        Names, typer.Option(help="Call folders of results like the picture, or by its stem.")
    ] = Names.ID,
    as_video: Annotated[
        bool,
        typer.Option(
            "--as-video",
            help="A folder of pictures is a video, each a frame; so is a picture that moves.",
        ),
    ] = False,
    every: Annotated[int, typer.Option(min=1, help="Every n-th frame of a video.")] = 1,
    start: Annotated[
        str | None, typer.Option("--from", help="First frame of a video: 90, or 3.5s.")
    ] = None,
    stop: Annotated[
        str | None, typer.Option("--to", help="The frame after the last: 180, or 7s.")
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format", help="A folder a picture, or a Parquet table with a row a picture."
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Run every n-th picture; writes Parquet parts."),
    ] = None,
    on: Annotated[
        Where | None,
        typer.Option("--on", help="Run on a cluster, in shards; writes Parquet parts."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster; else one of this machine.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on the cluster, and shards.")
    ] = None,
    gpus_per_worker: Annotated[
        int | None, typer.Option(min=0, max=1, help="0 or 1; 1 where the cluster has GPUs.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per micro-batch.")] = 8,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write a Chrome trace, for Perfetto."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Write a contact sheet, index.html, into the folder.")
    ] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest picture read.")] = MAX_PIXELS,
    pictures: Annotated[
        Pictures, typer.Option(help="Write pictures exactly, or small.")
    ] = Pictures.PNG,
    value_range: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="BLACK WHITE", help="Values in pictures of more than 8 bits."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")
    ] = False,
    strict_plugins: Strict = False,
) -> None:
    """Run a pipeline on pictures and write its outputs."""
    import_supervision()
    from sam2_blocks.engine.places import FrameChoice
    from sam2_blocks.runs.report import Report
    from sam2_blocks.runs.run import run_pipeline

    _refuse_more(context.args)
    alone = {"--address": address, "--workers": workers, "--gpus-per-worker": gpus_per_worker}
    elsewhere = {"--shard": shard, "--trace": trace, "--report": report, "--backend": backend}
    on_ray.check_options(
        on_ray=on is Where.RAY, form=form.value if form else None, given={**alone, **elsewhere}
    )
    _set_up_process(quiet=quiet, max_pixels=max_pixels, backend=backend)
    plugins, graph = _load(pipeline, strict=strict_plugins)
    values = parse_settings(settings or [], graph)
    values |= _values_of_options(graph, model=model, device=device, backend=backend)
    chosen: dict[str, Any] = {
        "settings": values,
        "resume": resume,
        "retry_set_aside": retry_set_aside,
        "names": names.value,
        "batch_size": batch_size,
        "max_pixels": max_pixels,
        "frames": FrameChoice(every, start, stop, as_video),
        "value_range": value_range,
        "pictures": pictures.value,
    }
    if on is Where.RAY:
        cluster = address, workers or 1, gpus_per_worker
        chosen |= {"plugins": plugins, "strict_plugins": strict_plugins}
        _run_on_ray(pipeline, inputs, folder, cluster, quiet=quiet, chosen=chosen)
        return
    started = time.perf_counter()
    under_way = run_pipeline(
        graph,
        inputs,
        out=folder,
        form=form.value if form else None,
        shard=shard,
        plugins=plugins,
        **chosen,
    )
    if not quiet:
        screen.print_notes(under_way.notes)
    sheet = Report(Path(graph.source).name) if report else None
    with _traced(plugins, trace, under_way.clock), _reported(plugins, sheet, under_way, folder):
        finished = _follow(under_way, folder, quiet=quiet, sheet=sheet)
    sum_up(under_way, finished, folder, seconds=time.perf_counter() - started)


def _set_up_process(*, quiet: bool, max_pixels: int, backend: str | None) -> None:
    """Set for the whole process what a program of our own may set, and a library must not."""
    out.quiet = quiet
    logging.getLogger("sam2_blocks").setLevel(logging.WARNING if quiet else logging.INFO)
    Pil.MAX_IMAGE_PIXELS = max_pixels
    if backend is not None:
        use_backend(backend)


def _run_on_ray(
    pipeline: Path,
    inputs: Sequence[str],
    folder: str,
    cluster: tuple[str | None, int, int | None],
    *,
    quiet: bool,
    chosen: dict[str, Any],
) -> None:
    """Run shards on a cluster, and print what became of them.

    Args:
        pipeline: its file, which each worker reads for itself.
        inputs: as they were given.
        folder: where results go.
        cluster: the fields of `RayOptions`: address, workers, and GPUs of each.
        quiet: print no progress.
        chosen: further arguments of `run_on_ray`.
    """
    from sam2_blocks.hosts.ray.launch import RayOptions, run_on_ray

    started = time.perf_counter()
    run = run_on_ray(pipeline, inputs, folder, RayOptions(*cluster), **chosen)
    finished = on_ray.follow(run, folder, quiet=quiet)
    sum_up(run, finished, folder, seconds=time.perf_counter() - started)


def _load(pipeline: Path, *, strict: bool) -> tuple[Plugins, Pipeline]:
    """Load plugins and the pipeline, and say what is to be said of them."""
    plugins = load_plugins(strict=strict)
    screen.warn_of_broken(plugins)
    graph = plugins.load_pipeline(pipeline)
    for warning in graph.warnings:
        screen.print_warning(warning.render(graph.source))
    return plugins, graph


def parse_settings(pairs: Sequence[str], pipeline: Pipeline) -> dict[str, Any]:
    """Parse ``name=value`` pairs; values are YAML, except for inputs that want text.

    Raises:
        UsageError: if a pair has no ``=``, names no input of the pipeline, or its value is none
            that the input could take.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair!r}: wants name=value.")
        if name not in pipeline.inputs:
            hint = did_you_mean(name, pipeline.inputs)
            raise UsageError(f"--set {pair!r}: the pipeline has no input {name!r}.{hint}")
        settings[name] = _parse(f"--set {pair!r}", text, name, pipeline)
    return settings


def _refuse_more(words: Sequence[str]) -> None:
    if words:
        shown = " ".join(words[:3]) + (" …" if len(words) > 3 else "")
        raise UsageError(
            f"unexpected {shown}: --input takes one value each time. If the shell replaced a "
            "pattern by file names, quote it (--input 'photos/*.jpg'), or repeat --input."
        )


def _values_of_options(pipeline: Pipeline, **options: str | None) -> dict[str, Any]:
    """Read options that stand for inputs of the pipeline; one without ``backend`` may leave it out.

    Raises:
        UsageError: if the pipeline has no such input, or it takes no such value.
    """
    return {
        name: _value_of_option(name, text, pipeline)
        for name, text in options.items()
        if text is not None and (name != "backend" or name in pipeline.inputs)
    }


def _value_of_option(name: str, text: str, pipeline: Pipeline) -> Any:
    if name not in pipeline.inputs:
        raise UsageError(
            f"--{name}: {pipeline.source} has no input {name!r}. Add one, such as "
            f"'{name}: {{kind: string, default: …}}', and wire it into steps as $inputs.{name}."
        )
    return _parse(f"--{name} {text!r}", text, name, pipeline)


def _parse(where: str, text: str, name: str, pipeline: Pipeline) -> Any:
    """Read a value as it was given, if it is one that the input takes."""
    kinds = pipeline.inputs[name].kinds
    from sam2_blocks.kinds import kinds_named, parse_value

    value = text if {"string", "image"}.intersection(kinds) else _yaml(where, text)
    try:
        parse_value(value, kinds_named(kinds, pipeline.kinds))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}.") from error
    return value


def _yaml(where: str, text: str) -> Any:
    from sam2_blocks.language.documents import parse_yaml

    document = parse_yaml(text, where)
    if document.problems:
        raise UsageError(f"{where}: {document.problems[0].message}.")
    return document.data


@contextmanager
def _traced(plugins: Plugins, path: Path | None, clock: Clock) -> Iterator[None]:
    """Record what runs meanwhile, and write it whatever becomes of it."""
    if path is None:
        yield
        return
    from sam2_blocks.engine.trace import TraceRecorder

    recorder = TraceRecorder()
    plugins.manager.register(recorder)
    clock.listener = recorder.add_stage
    try:
        yield
    finally:
        recorder.write(path, clock.seconds)


@contextmanager
def _reported(plugins: Plugins, sheet: Report | None, run: Run, folder: str) -> Iterator[None]:
    """Let the contact sheet see the steps, and write it whatever becomes of a run that began.

    One that was refused has no business in the folder, where another one's sheet may be.
    """
    if sheet is None:
        yield
        return
    plugins.manager.register(sheet)
    try:
        yield
    finally:
        if run.has_begun:
            _write_report(sheet, run, folder)


def _write_report(sheet: Report, run: Run, folder: str) -> None:
    if Path(folder).is_dir():
        screen.print_result(f"report: {safe(sheet.write(Path(folder), run.errors))}")
    else:
        screen.print_warning(f"--report: {folder} is no folder, so there is no report")


def _follow(under_way: Run, folder: str, *, quiet: bool, sheet: Report | None = None) -> int:
    """Show results as they come, and return how many came."""
    on = out if out.is_terminal else err
    finished = shown = 0
    failures = screen.Failures(folder)
    try:
        with (
            under_way,
            Progress(console=on, transient=True, disable=quiet or not on.is_terminal) as progress,
        ):
            total = under_way.total
            if under_way.done_before:
                found = "" if total is None else f" of {under_way.done_before + total}"
                out.print(f"{under_way.done_before}{found} were done before")
            task = progress.add_task("running", total=total)
            for result in under_way:
                finished += 1
                progress.advance(task)
                if sheet:
                    sheet.add(result)
                print_result(result, failures, brief=total != 1)
                shown += len(result.errors)  # those of what comes next may be known, too
    except UsageError as wrong:
        if not finished:
            raise
        done = f"{finished} before it are in {folder}; once that is mended, --resume goes on."
        raise SourceError(f"{wrong} {done}") from wrong
    except KeyboardInterrupt:
        screen.print_interrupted(finished, under_way.total, folder)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for error in under_way.errors[shown:]:
            failures.show(error)
        failures.show_rest()
    return finished


def print_result(result: ItemResult, failures: screen.Failures, *, brief: bool) -> None:
    """Print a table of every output with detections, or their number if there are many items."""
    from sam2_blocks.cli.tables import count_detections, detections_table

    for error in result.errors:
        failures.show(error)
    for skip in [] if brief else result.skipped:
        element = "" if skip.index is None else f"[{skip.index}]"
        note = f"{safe_name(result.id)}: {skip.step}{element} did not run: {safe(skip.reason)}"
        out.print(note, soft_wrap=True)
    for name, value in result.outputs.items():
        title = f"{safe_name(result.id)}: {name}"
        count = count_detections(value)
        if count is not None:
            screen.print_result(f"{title}: {count}" if brief else detections_table(value, title))
