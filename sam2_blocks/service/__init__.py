"""The service: `Sam2*` requests in, answers out, for any host that can await.

`core` is the way of one request: `admission` → `opening` (`fetch`, `images`, `decoders`) → `names`
→ `lanes` (which gather requests into batches, by `batching`) → `logits` → `answers`. `pipelines` is
that of a pipeline, each of which is a run of its own (`runs`) and gets models that are `watched`.
Videos go through `tracks` (sessions), `track_table` and `track_frames`.

`settings` is what an operator decides, `models` what is served, `errors` why a request is refused.
`decoder` is the process that decodes pictures of strangers; `room` and `threads` bound what is done
at once.

Nothing here knows HTTP; `sam2_blocks.hosts.http` does. Nothing imports torch until a model is
loaded. What is not asked for is not imported: the command line needs the settings, and soon.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2_blocks.service.core import Service
    from sam2_blocks.service.models import ServedModels, load_models
    from sam2_blocks.service.settings import ServiceSettings

__all__ = ["ServedModels", "Service", "ServiceSettings", "load_models"]

_MODULES = {
    "ServedModels": "models",
    "Service": "core",
    "ServiceSettings": "settings",
    "load_models": "models",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
