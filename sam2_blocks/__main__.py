"""``python -m sam2_blocks`` is the program ``sam2-blocks``."""

from sam2_blocks.cli import main

if __name__ == "__main__":
    main()
