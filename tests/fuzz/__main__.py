"""``python -m fuzz``: seeded mutations of every format in one process; exits 1 at any finding.

``FUZZ_CASES`` of each format (100 000), from ``FUZZ_SEED`` (0), of the formats named as arguments
(all). A case fails if anything but one of our own errors comes out, if it takes over a second of
CPU time, or if the process grows by a gigabyte.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from fuzz.formats import FORMATS, Format, fresh
from fuzz.mutations import mutated

from hsi_batch.errors import HsiBatchError

CASES = int(os.environ.get("FUZZ_CASES", "100000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SECONDS, BYTES = 1.0, 2**30
#: Findings of one format that are shown.
SHOWN = 5


def memory(*, anew: bool = False) -> int:
    """Most bytes that this process held so far, or since the last time that was counted anew."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def findings(name: str, kind: Format, cases: int, seed: int) -> tuple[list[str], int, float]:
    """What went wrong, how many cases were accepted, and the slowest in seconds."""
    found: list[str] = []
    accepted, slowest = 0, 0.0
    before = memory(anew=True)
    for number in range(cases):
        rng = random.Random(f"{name}/{seed}/{number}")
        if kind.inner and number % 2:
            raw = kind.wrap(mutated(rng.choice(kind.inner), rng))
        else:
            raw = mutated(rng.choice(kind.seeds), rng)
        begun = time.thread_time()
        try:
            kind.read(raw)
            accepted += 1
        except HsiBatchError:
            pass
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            frames = traceback.extract_tb(error.__traceback__)[-4:]
            where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
            found.append(f"case {number}: {type(error).__name__} {error} at {where}: {raw[:99]!r}")
        took = time.thread_time() - begun
        slowest = max(slowest, took)
        if took > SECONDS:
            found.append(f"case {number}: {took:.1f} s: {raw[:99]!r}")
        if number % 16 == 0 and memory() - before > BYTES:
            text = f"{(memory() - before) / 2**20:.0f} MiB"
            found.append(f"case {number} or one of 15 before: {text}: {raw[:99]!r}")
            before = memory(anew=True)
        if len(found) >= 20 * SHOWN:
            break
    return found, accepted, slowest


def main(names: list[str]) -> int:
    """Fuzz the formats; a line for each."""
    warnings.simplefilter("ignore")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names or list(FORMATS):
            kind = FORMATS[name](fresh(Path(folder) / "f"))
            for seed in kind.seeds:
                kind.read(seed)
            begun = time.monotonic()
            found, accepted, slowest = findings(name, kind, CASES, SEED)
            took = time.monotonic() - begun
            print(
                f"{name}: {CASES} cases in {took:.0f} s, {accepted} accepted, slowest"
                f" {slowest * 1e3:.0f} ms, {len(found)} findings",
                flush=True,
            )
            for text in found[:SHOWN]:
                print(f"  {text}", flush=True)
            bad += len(found)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
