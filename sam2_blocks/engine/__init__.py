"""What runs a checked pipeline: plugins and their hooks, resources, the runner and its traces."""
