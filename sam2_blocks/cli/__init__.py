"""The program ``sam2-blocks``: options and screen, no work of its own."""

from sam2_blocks.cli.app import main

__all__ = ["main"]
