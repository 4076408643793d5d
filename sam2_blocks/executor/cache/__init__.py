"""Embeddings that are kept: on the device, in host memory and on disk, each within its bytes.

`tiers` is the cache that executors use. Two of its tiers are an `lru`, the third is `files`.
`compiled` keeps what compilers made of a network.
"""
