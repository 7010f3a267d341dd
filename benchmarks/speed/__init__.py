"""Speed of hsi_batch beside its peers, on the same data and in one run: ``make bench``."""
