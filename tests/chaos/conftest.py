"""Tells at the end which faults there were, and how often."""

from __future__ import annotations


def pytest_terminal_summary(terminalreporter, config):
    counts = getattr(config, "chaos_counts", None)
    if counts:
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
        terminalreporter.write_line(f"chaos: {sum(counts.values())} faults: {told}")
