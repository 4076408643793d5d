"""Where the items of a run come from."""
