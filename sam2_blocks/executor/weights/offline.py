"""Whether anything may be downloaded. No torch."""

from __future__ import annotations

from sam2_blocks.environment import read_switch

OFFLINE_VARIABLE = "SAM2_BLOCKS_OFFLINE"


def is_offline() -> bool:
    """Say whether ``SAM2_BLOCKS_OFFLINE`` forbids downloads."""
    return read_switch(OFFLINE_VARIABLE)
