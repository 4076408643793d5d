"""``sam2-blocks serve``: options → `ServiceSettings`, models, app, server.

The options are those of the settings, made from what `ServiceSettings` says of each, and a few of
the program's own.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from annotated_types import Ge, Gt

from sam2_blocks.errors import PromptWarning, UsageError
from sam2_blocks.service.settings import (
    MODELS,
    NETWORK,
    ServiceSettings,
    Setting,
    told_settings,
)

PAGE = "Page"


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on.", rich_help_panel=NETWORK)
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 takes a free one.", rich_help_panel=NETWORK)
    ] = 9001,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Model to serve; repeat for more, the first is the default. ASKED=MODEL answers "
            "requests for ASKED with MODEL. By default $SAM2_VERSION_ID, or nano.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=MODELS)
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16, float16 or int8.", rich_help_panel=MODELS)
    ] = "auto",
    pipelines: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of YAML pipelines that may be run by name.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    page: Annotated[
        bool | None,
        typer.Option(
            "--page/--no-page",
            help="Serve the page for clicking masks at /page. By default only where nobody else "
            "reaches it: on a loopback address, or with --api-key.",
            rich_help_panel=PAGE,
        ),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--images",
            exists=True,
            help="Folder of pictures to choose from on the page.",
            rich_help_panel=PAGE,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            file_okay=False,
            help="Folder that the page saves to, and opens again.",
            rich_help_panel=PAGE,
        ),
    ] = None,
    **chosen: Any,
) -> None:
    """Serve the Sam2 requests of Roboflow Inference, and pipelines, over HTTP.

    SAM2_MAX_EMBEDDING_CACHE_SIZE, SAM2_MAX_LOGITS_CACHE_SIZE and DISABLE_SAM2_LOGITS_CACHE are
    read as the public server reads them.
    """
    from sam2_blocks.engine.plugins import load_plugins
    from sam2_blocks.hosts import http
    from sam2_blocks.service import load_models

    settings = ServiceSettings.from_environment(**_to_settings(chosen))
    # Nobody reads them, and Python would remember every different one for as long as we serve.
    warnings.simplefilter("ignore", PromptWarning)
    create_app, run = http.create_app, http.serve  # fails now if the extra is missing
    if page is None:
        page = http.is_loopback(host) or bool(settings.api_key)
    if not page and (pictures or out):
        raise UsageError(
            "--images and --out are for the page, which is off here; turn it on with --page."
        )
    shown = http.PageFolder(pictures, out) if page else None
    plugins = load_plugins()
    names = models or [os.environ.get("SAM2_VERSION_ID") or "nano"]
    served = load_models(names, plugins.executors, settings, device=device, dtype=dtype)
    app = create_app(served, settings, plugins=plugins, pipelines=pipelines, page=shown)
    run(app, host=host, port=port)


def _to_settings(chosen: dict[str, Any]) -> dict[str, Any]:
    """Values of options → values of settings: bytes of MiB, words of choices."""
    units = {name: setting.unit for name, _, _, setting in told_settings()}
    return {
        name: value.value
        if isinstance(value, Enum)
        else value
        if value is None or units[name] == 1
        else value * units[name]
        for name, value in chosen.items()
    }


def _parameters() -> Iterator[inspect.Parameter]:
    """The options that the settings make."""
    for name, hint, default, setting in told_settings():
        if setting.option:
            yield _parameter(name, hint, default, setting)


def _parameter(name: str, hint: Any, default: Any, setting: Setting) -> inspect.Parameter:
    kind: Any = get_args(hint)[0]
    if get_origin(kind) is Literal:
        kind = _choice(name, get_args(kind))
        default = kind(default)
    elif setting.unit != 1 and default is not None:
        default //= setting.unit
    flag = f"--{setting.option}"
    option = typer.Option(
        f"{flag}/--no-{setting.option}" if kind is bool else flag,
        help=setting.help,
        envvar=setting.variable,
        rich_help_panel=setting.group,
        **_bounds(name, hint),
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, option],
    )


def _choice(name: str, words: Sequence[str]) -> Any:
    """What typer wants for one of some words."""
    make: Any = Enum
    return make(name, {word.upper(): word for word in words}, type=str)


def _bounds(name: str, hint: Any) -> dict[str, Any]:
    """What typer may check by itself."""
    if Path in _parts(get_args(hint)[0]):
        return {"file_okay": False, "exists": name == "file_root"}  # other folders are made
    least = [bound.ge for bound in hint.__metadata__ if isinstance(bound, Ge)]
    least += [0.1 for bound in hint.__metadata__ if isinstance(bound, Gt)]  # of a second
    return {"min": least[0]} if least else {}


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _take_options_of_settings() -> None:
    """Let typer see an option for each setting where `serve` has ``**chosen``."""
    own = [
        parameter
        for parameter in inspect.signature(serve, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    every = [*own, *_parameters()]
    serve.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    serve.__annotations__ = {parameter.name: parameter.annotation for parameter in every}


_take_options_of_settings()
