"""A whole run: where items come from, where results go, and what an earlier run left.

`run` is the call, `opening` finds the source and the sink for what somebody named, `journal` notes
what is finished. What sources and sinks offer is written in `sam2_blocks.engine.places`.
"""
