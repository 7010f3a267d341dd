"""``python -m flips``: one byte flipped in each of many copies; exits 1 if any flip is silent.

In each case a byte of a small archive, a store of scores, or a fitted pipeline is changed at a
random place (``FLIPS`` of each, 500; ``FLIPS_SEED``), run state included. A flip counts as found if
``verify --deep`` reports it or opening refuses it. Everything runs in one process.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self
from unittest import mock

from hsi_batch.archive.store import state_folder
from hsi_batch.errors import HsiBatchError
from hsi_batch.stages import verify as stage

KINDS = ("archive", "scores", "pipeline")


def files_of(store: Path) -> list[Path]:
    """All files of a store and of its run state."""
    both = (store, state_folder(store))
    found = (f for folder in both for f in folder.rglob("*") if f.is_file())
    return sorted(f for f in found if f.stat().st_size)


def here(_run: object, path: str, keys: list) -> list:
    """What workers do, in this process."""
    return stage._check_items(keys, "", path, "")


class _NoWorkers:
    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def is_sound(kind: str, place: Path) -> bool:
    """Whether nothing is wrong with a store or a fitted pipeline."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "pipeline":
                return stage.verify_pipeline(place).sound
            with (
                mock.patch.object(stage, "_decode", here),
                mock.patch.object(stage, "Run", _NoWorkers),
            ):
                return stage.verify(place, deep=True).sound
    except HsiBatchError:
        return False


def flipped(file: Path, rng: random.Random) -> str:
    """Change one byte, unbuffered and in place; says which."""
    raw = bytearray(file.read_bytes())
    at = rng.randrange(len(raw))
    before, raw[at] = raw[at], raw[at] ^ rng.randrange(1, 256)
    file.write_bytes(raw)
    return f"{file.name} byte {at} of {len(raw)}: {before:#04x} -> {raw[at]:#04x}"


def silent(
    kind: str, place: Path, count: int, seed: int, tell: Callable[[str], None] = lambda _: None
) -> tuple[list[str], Counter[str]]:
    """Flips that nothing finds, and how often each kind of file was hit.

    Half of the bytes are chosen evenly over all bytes, half evenly over all files, so that small
    files have their turn, too. The file is put back after each case, and the whole must be sound.
    """
    pair = [place, place.with_suffix(".pt")]
    files = pair if kind == "pipeline" else files_of(place)
    sizes = [f.stat().st_size for f in files]
    missed: list[str] = []
    hit: Counter[str] = Counter()
    assert is_sound(kind, place)
    for number in range(count):
        rng = random.Random(f"{kind}/{seed}/{number}")
        (file,) = rng.choices(files, sizes) if number % 2 else [rng.choice(files)]
        whole = file.read_bytes()
        what = flipped(file, rng)
        hit[file.name if not file.name.isdecimal() else "chunk"] += 1
        if is_sound(kind, place):
            missed.append(f"case {number}: {file}: {what}")
            tell(missed[-1])
        file.write_bytes(whole)
    assert is_sound(kind, place)
    return missed, hit


def make(folder: Path) -> dict[str, Path]:
    """A small archive with labels, its scores and its pipeline; starts workers once."""
    import numpy as np
    from recordings import scene, write_envi

    from hsi_batch.cluster import connect
    from hsi_batch.stages.convert import convert
    from hsi_batch.stages.fit_file import fit_file
    from hsi_batch.stages.score import score
    from hsi_batch.workflow import shipped

    for i, name in enumerate("ab"):
        cube, mask = scene(i)
        nm = np.arange(cube.shape[-1]) * 20.0 + 450
        write_envi(folder / "in" / f"{name}.hdr", cube, wavelength=nm, mask=mask)
    shutil.copy(shipped() / "pipelines" / "rx_statistical.yaml", folder / "rx.yaml")
    places = {
        "archive": folder / "a.zarr",
        "scores": folder / "s.zarr",
        "pipeline": folder / "f.yaml",
    }
    with connect(workers=1) as client:
        convert(folder / "in", places["archive"], block_lines=16, client=client)
        fit_file(folder / "rx.yaml", places["archive"], places["pipeline"], client=client)
        score(places["pipeline"], places["archive"], places["scores"], client=client)
    return places


def main() -> int:
    """Flip; a line for each kind."""
    count, seed = int(os.environ.get("FLIPS", "500")), int(os.environ.get("FLIPS_SEED", "0"))
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        places = make(Path(folder))
        for kind in KINDS:
            begun = time.process_time()
            missed, hit = silent(kind, places[kind], count, seed, lambda t: print(f"  SILENT {t}"))
            names = ", ".join(f"{name} {n}" for name, n in hit.most_common())
            took = time.process_time() - begun
            print(f"{kind}: {count} flips, {len(missed)} silent, {took:.0f} s of CPU; in {names}")
            sys.stdout.flush()
            bad += len(missed)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
