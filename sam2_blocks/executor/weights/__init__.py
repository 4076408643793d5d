"""Where weights come from: a name to a file that is whole, and a file to a network.

`catalogue` knows models by name, `names` and `places` what other names mean, `download` and `hub`
bring files, `checkpoint` reads them, `layouts` renames their tensors, and `upstream` builds the
network of the ``sam2`` package that they fill. `labels` reads the classes of a detector, and
`offline` says whether anything may be downloaded.
"""
