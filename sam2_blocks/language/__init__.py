"""The YAML languages: manifests and pipelines, from text to a checked graph.

A pipeline's way: `documents` (text to data with places) → `written` (what a file may say) →
`checking` (every problem, by `selectors`, `wiring`, `flow` and `fields`) → `pipeline` (the graph).
`composed` makes a pipeline a block of others.

A block's way: `manifest`, which `read_before` has ready for ours. `schema`, `reference` and `graph`
make JSON Schemas, documentation and pictures of both.
"""
