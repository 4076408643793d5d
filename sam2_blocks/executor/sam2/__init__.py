"""The SAM 2 executor. One picture's way: `preprocess`, `encode`, `rows`, `decode`, `answer`."""
