"""Which distributions are installed here, without importing them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def version_of(distribution: str) -> str:
    """Return the version of a distribution, as installers know it; empty if it is not here.

    Args:
        distribution: its name at a registry, in any spelling that means the same.
    """
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
