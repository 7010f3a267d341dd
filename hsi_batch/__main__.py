"""``python -m hsi_batch``."""

from hsi_batch.cli import main

if __name__ == "__main__":
    main()
