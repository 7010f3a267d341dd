from commands import hsi_fixture  # noqa: F401

# They are run, not imported.
collect_ignore_glob = ["scripts/*.py"]
