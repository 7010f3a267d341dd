"""Source files to frames: cu3s (the cuvis SDK), ENVI, npz; others by entry point."""
