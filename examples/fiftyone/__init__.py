"""A remote source of FiftyOne's model zoo; see docs/hosts/fiftyone.md."""

from sam2_blocks.hosts.fiftyone.zoo import download_model, load_model, resolve_input

__all__ = ["download_model", "load_model", "resolve_input"]
