"""Where the results of a run go."""
