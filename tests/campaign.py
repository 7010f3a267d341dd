"""A line-scan campaign with known truth: counts, references, two sensors, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from readers.envi_files import write_envi

BANDS = 24
NM = np.linspace(1000, 1920, BANDS)
WATER = (NM > 1340) & (NM < 1450)
BITS = 14
#: What can be wrong with a recording, and is set right without being told; `striping` beside it.
DEFECTS = ("border", "saturated", "dead", "water")
MAP = "{UTM, 1, 1, 500000, 5400000, 0.5, 0.5, 33, North, WGS-84, units=Meters}"


@dataclass
class Scan:
    """One recording, and what is true of it."""

    name: str
    counts: np.ndarray
    white: np.ndarray
    dark: np.ndarray
    reflectance: np.ndarray
    targets: np.ndarray
    flagged: np.ndarray
    shift: float
    sensor: str
    boxes: list = field(default_factory=list)

    def write(self, folder):
        """As ENVI files, the references beside the scan; returns the header."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        fields = {
            "wavelength": "{" + ", ".join(f"{nm + self.shift:.2f}" for nm in NM) + "}",
            "wavelength_units": "nm",
            "sensor_type": self.sensor,
            "bit_depth": BITS,
            "data_ignore_value": -9999,
        }
        header = write_envi(folder, self.counts, name=self.name, map_info=MAP, **fields)
        write_envi(folder, self.white, name=f"WHITEREF_{self.name}", **fields)
        write_envi(folder, self.dark, name=f"DARKREF_{self.name}", **fields)
        return header


def scan(name, seed, *, defects=(), shift=0.0, sensor="SWIR-1", targets=5, size=(80, 60)):
    """Gaussian soil with a belt of another material, targets planted as parts of pixels."""
    rng = np.random.default_rng(seed)
    base = 0.35 + 0.1 * np.sin(NM / 150)
    loads = rng.normal(0, 1, (4, BANDS)) * 0.02
    shape = lines, samples = size
    scene = base + rng.normal(0, 1, (*shape, 4)) @ loads + rng.normal(0, 0.004, (*shape, BANDS))
    spectrum = 0.35 + 0.25 * np.exp(-(((NM - 1650) / 60) ** 2)) - 0.1 * np.cos(NM / 40)
    truth = np.zeros(shape, dtype=bool)
    boxes = []
    while len(boxes) < targets:
        y, x = rng.integers(12, lines - 14), rng.integers(8, samples - 10)
        if not truth[y - 3 : y + 6, x - 3 : x + 6].any():
            truth[y : y + 2, x : x + 2] = True
            boxes.append((y, x, y + 2, x + 2))
    scene[truth] = 0.7 * scene[truth] + 0.3 * spectrum
    # Lamp and sensor differ from column to column.
    lamp = 9000 * (0.7 + 0.3 * np.sin(np.linspace(0.4, 2.7, samples)))[:, None]
    span = lamp * (0.6 + 0.4 * np.cos((NM - 1450) / 600)) * rng.normal(1, 0.05, (samples, BANDS))
    signal = rng.normal(300, 10, (samples, BANDS))
    if "water" in defects:
        span[:, WATER] = 0
    dead = np.zeros(samples, dtype=bool)
    if "dead" in defects:
        dead[[31, 47]] = True
        span[dead] = 0
    counts = np.rint(scene * span + signal)
    white = np.rint(span + signal + rng.normal(0, 2, (20, samples, BANDS)) * (span > 0))
    dark = np.rint(signal + rng.normal(0, 2, (15, samples, BANDS)) * (span > 0))
    white[:, span[..., :].sum(-1) == 0] = dark[:, span.sum(-1) == 0][:1]
    if "water" in defects:
        white[..., WATER] = dark[..., WATER] = counts[..., WATER] = 0
    if "striping" in defects:
        # What the detector adds since its references were taken; whole counts, so that it is exact.
        counts += np.random.default_rng(seed + 1).integers(-60, 60, (samples, BANDS))
    flagged = np.zeros(shape, dtype=bool)
    flagged[:, dead] = True
    if "saturated" in defects:
        spots = (rng.integers(0, lines, 12), rng.integers(0, samples, 12))
        counts[spots] = 2**BITS - 1
        flagged[spots] = True
    if "border" in defects:
        counts[:6] = counts[-4:] = -9999
        flagged[:6] = flagged[-4:] = True
    as_stored = [np.ascontiguousarray(a.astype(np.int16)) for a in (counts, white, dark)]
    return Scan(name, *as_stored, scene, truth, flagged, shift, sensor, boxes)
