"""Side-by-side measurements against other ways to do the same work: ``python -m benchmarks``."""
