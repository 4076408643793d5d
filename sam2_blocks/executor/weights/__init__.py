"""Where weights come from: catalogue, downloads, checkpoints and ``sam2``'s own configs."""
