"""What runs a checked pipeline.

- who brings what: `hookspecs` (every hook), `plugins` (loads them), `builtin` (ours), `pipelines`
- models: `models` (their names), `resources` (loads each once), `loads`, `memory`, `qualified`
- running: `intake` (items as they come), `runner` (micro-batches), `flow` (``when``, ``for_each``),
  `records` (items and results), `trace`
- in and out: `places` (what sources, sinks and exporters offer), `exporters` (values to files)
- `functions`: a Python function as a block
"""
