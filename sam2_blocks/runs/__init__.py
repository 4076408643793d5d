"""A whole run: where items come from, where results go, and what an earlier run left.

`run` is the call, and `once` that for a single picture. `opening` finds the source and the sink for
what somebody named; what these offer is written in `sam2_blocks.engine.places`.

- to go on after a crash: `journal` (what is finished), `started` (what was begun), `flight` (what
  was under way)
- many machines: `shards`, `stores` (a folder anywhere), `merge` (one file of all parts)
- after a run: `loading` (as a data set), `report` (a contact sheet)
"""
