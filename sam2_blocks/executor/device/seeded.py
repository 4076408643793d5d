"""Random numbers from a generator of our own, while the process's random state stays as it is.

Building a network draws initial weights from torch's global generator. Seeding that one, even to
put it back afterwards, disturbs whoever draws from it in another thread, and they disturb us.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_DRAWING = {
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal),
    *(torch.bernoulli, torch.multinomial),
    *(torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.random_),
    *(torch.Tensor.bernoulli_, torch.Tensor.exponential_, torch.Tensor.cauchy_),
    *(torch.Tensor.log_normal_, torch.Tensor.geometric_),
}
_INITIALISERS = {
    function
    for name, function in vars(nn.init).items()
    if callable(function)
    and not name.startswith("_")
    and isinstance(function, type(signature))
    and "generator" in signature(function).parameters
}


class Seeded(TorchFunctionMode):
    """Scope in which this thread's new random numbers come from one seed.

    They are those that ``torch.manual_seed(seed)`` would have given. CPU only.

    Args:
        seed: of the generator.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Hand our generator to whatever draws without one."""
        given = dict(kwargs or {})
        draws = func in _DRAWING or func in _INITIALISERS
        if draws and given.get("generator") is None:
            given["generator"] = self._generator
        return func(*args, **given)
