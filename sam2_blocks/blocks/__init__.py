"""The built-in blocks, one a file; the contract of a block is `sam2_blocks.engine.runner.Block`."""
