"""Which loaded models stay on a device, so that all of them together fit into a budget.

SAM 2, detectors and whatever plugins load share one device. The model that was used the longest ago
is given up first; who still holds it goes on with it, and whoever asks for it again while it is
held gets that one, so that no model is there twice.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

from sam2_blocks.environment import read_count
from sam2_blocks.executors import HoldsMemory, KnowsDevice, Loaded
from sam2_blocks.forks import ForkSafeLock

LOGGER = logging.getLogger(__name__)
BUDGET_VARIABLE = "SAM2_BLOCKS_MODEL_MEMORY_MB"
"""Environment variable: MiB that the models of one accelerator may take together."""

SHARE = 0.5  # of a device's memory; pictures, embeddings and what networks compute need the rest

BudgetOf = Callable[[str], int | None]
"""``budget_of(device)``: bytes that the models on it may take together; None for any number."""


def default_budget(model: Loaded) -> int | None:
    """Return what the environment says of accelerators, else half of the memory of its device.

    Models on the CPU have no bound.

    Raises:
        Sam2BlocksError: if the variable is no number.
    """
    if model.spec.device == "cpu":
        return None
    mib = read_count(BUDGET_VARIABLE, 0)
    if mib:
        return mib * 2**20
    total = model.device_nbytes if isinstance(model, KnowsDevice) else None
    return None if total is None else int(total * SHARE)


class ModelMemory:
    """Keeps count of the models that are loaded, the one used last at the end.

    Args:
        budget_of: see `BudgetOf`; `default_budget` if not given.
    """

    def __init__(self, budget_of: BudgetOf | None = None) -> None:
        self._budget_of = budget_of
        self._used: OrderedDict[int, Loaded] = OrderedDict()
        self._lock = ForkSafeLock()

    def use(self, model: Loaded) -> list[Loaded]:
        """Note that a model is used now.

        Returns:
            The models to give up for it: of its device, those used the longest ago. It stays
            itself, whatever its size.
        """
        with self._lock.held():
            is_new = id(model) not in self._used
            self._used[id(model)] = model
            self._used.move_to_end(id(model))
            return self._too_many(model) if is_new else []

    def _too_many(self, model: Loaded) -> list[Loaded]:
        device = model.spec.device
        budget = self._budget_of(device) if self._budget_of else default_budget(model)
        if budget is None:
            return []
        beside = [one for one in self._used.values() if one.spec.device == device]
        held = sum(map(nbytes_of, beside))
        dropped: list[Loaded] = []
        for one in beside[:-1]:
            if held <= budget:
                break
            size = nbytes_of(one)
            if size:
                held -= size
                del self._used[id(one)]
                dropped.append(one)
                LOGGER.info(
                    "giving up %s: the models on %s take more than %d MiB",
                    one.spec.full_name,
                    device,
                    budget // 2**20,
                )
        return dropped


def nbytes_of(model: Loaded) -> int:
    """Bytes that a model holds on its device; 0 for one that does not say."""
    return int(model.nbytes) if isinstance(model, HoldsMemory) else 0
