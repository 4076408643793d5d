"""How to use an executor: everything, in tiles, in crops. Arrays in, predictions out, no torch."""
