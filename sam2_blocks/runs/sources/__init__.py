"""Where the items of a run come from, one module a form; `sam2_blocks.runs.opening` chooses.

`addresses` reads whatever a path or URL names, for all of them.
"""
