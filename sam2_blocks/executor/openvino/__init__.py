"""Parts of a network in OpenVINO, converted in memory and kept on disk for the next process.

`library` imports the package, `functions` converts and runs, and `calibrations` keeps what int8
rounds by.
"""
