"""Embeddings that are kept: on the device, in host memory and on disk, each within its bytes."""
