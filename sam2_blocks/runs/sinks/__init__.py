"""Where the results of a run go: `folder` writes files, `parquet` parts of a table.

`earlier` knows what an earlier run left in a folder.
"""
