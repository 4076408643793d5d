"""The YAML languages: manifests and pipelines, from text to a checked graph."""
