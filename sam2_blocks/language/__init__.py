"""The YAML languages: manifests and pipelines, from text to a checked graph.

A pipeline's way: `documents` (text to data with places) → `written` (what a file may say) →
`checking` (every problem, by `selectors`, `wiring`, `flow`, `fields` and `unknown`) → `pipeline`
(the graph). `constants` checks values that all items share, and `composed` makes a pipeline a block
of others.

A block's way: `manifest`, which `read_before` has ready for ours; `items` compares it with the
block's class. `schema`, `reference` and `graph` make JSON Schemas, documentation and pictures of
both.
"""
