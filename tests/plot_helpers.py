"""What tests of pictures share: the sessions, and their pixels by plain numpy."""

import numpy as np

NM = np.linspace(460, 670, 8)
NAMES = ("s0", "s1", "s2")


def pixels_of(archive, names=NAMES):
    """All valid pixels ``(n, C)`` as float64, by plain numpy."""
    found = []
    for name in names:
        session = archive[name].load()
        cube = session.cube.values
        valid = np.ones(cube.shape[:3], dtype=bool)
        if "quality" in session:
            valid = session.quality.values == 0
        found.append(cube[valid].astype(np.float64))
    return np.concatenate(found)


def textbook(m0, s0, m1, s1):
    """Mahalanobis shift, and growth of the mean RX score."""
    p0 = np.linalg.inv(s0)
    shift = np.sqrt((m1 - m0) @ p0 @ (m1 - m0))
    return shift, (np.trace(p0 @ s1) + shift**2) / len(m0)
