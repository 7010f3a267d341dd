"""A first look at a recording: picture, mean spectrum, flags, noise, bands that look bad."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_batch.errors import ConfigError
from hsi_batch.files import write_atomically
from hsi_batch.nodes.view import spans
from hsi_batch.readers.protocol import SourceInfo
from hsi_batch.readers.references import find_references
from hsi_batch.readers.registry import open_source
from hsi_batch.stages import pictures
from hsi_batch.stages.outputs import check_place
from hsi_batch.statistics.quality import Quality, flag_pixels

__all__ = ["Quicklook", "quicklook"]

#: Lines that are read of a frame, in runs, so that files of any size take seconds.
_LINES, _RUN = 512, 8
#: Bands whose signal is below so many times their noise look bad.
_LOW_SIGNAL = 3.0


@dataclass(frozen=True)
class Quicklook:
    """What a first look shows.

    Attributes
    ----------
    source : str
    facts : dict
        Size, type, wavelengths, sensor, quantity, references.
    flags : dict of float
        Per cent of the pixels that were looked at, by flag.
    mean, std, noise : numpy.ndarray of float64, shape (C,)
        Of the valid pixels, as stored. The noise is that between neighbours in a line: 1.4826
        times the median deviation of their differences, over the square root of 2.
    bad : dict of list of int
        Channels that look bad, by why.
    page : str, optional
        The HTML page.
    """

    source: str
    facts: Mapping[str, Any]
    flags: Mapping[str, float]
    mean: NDArray[np.float64] = field(repr=False)
    std: NDArray[np.float64] = field(repr=False)
    noise: NDArray[np.float64] = field(repr=False)
    bad: Mapping[str, list[int]] = field(default_factory=dict)
    page: str | None = None

    def __str__(self) -> str:
        lines = [self.source]
        lines += [f"  {name}: {value}" for name, value in self.facts.items() if value is not None]
        said = ", ".join(f"{name} {share:.2f} %" for name, share in self.flags.items())
        lines.append(f"  flagged pixels: {said or 'none'}")
        for why, channels in self.bad.items():
            if channels:
                lines.append(f"  bands that are {why}: {spans(channels)}")
        suspects = sorted({c for why in self.bad for c in self.bad[why] if why != "marked bad"})
        if suspects:
            lines.append(f"  leave them out with --exclude-bands {spans(suspects)}")
        if self.page is not None:
            lines.append(f"  page: {self.page}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        values = {name: getattr(self, name).tolist() for name in ("mean", "std", "noise")}
        named = {"source": self.source, "facts": dict(self.facts), "flags": dict(self.flags)}
        return {**named, **values, "bad": dict(self.bad), "page": self.page}


def quicklook(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    frame: int = 0,
    mode: str | None = None,
    nodata: float | None = None,
    saturation: float | None = None,
) -> Quicklook:
    """Look at one frame of a recording without converting it; large ones are looked at in part.

    Parameters
    ----------
    source : path
    out : path, optional
        HTML page to write.
    frame : int
    mode, nodata, saturation
        As for :func:`~hsi_batch.stages.convert.convert`.

    Raises
    ------
    hsi_batch.errors.SourceError
        It cannot be read.
    hsi_batch.errors.ConfigError
        There is no such frame.
    """
    path = str(Path(source).absolute())
    if out is not None:
        check_place(out)
    with open_source(path, mode=mode) as opened:
        info = opened.info
        if not 0 <= frame < info.frames:
            raise ConfigError(
                f"there is no frame {frame}; the recording has {info.frames}.",
                path=path,
                hint="Frames count from 0.",
            )
        cube = _some_lines(opened.frame(frame), info)
    limits = {
        "nodata": info.nodata if nodata is None else nodata,
        "saturation": info.saturation if saturation is None else saturation,
    }
    flags = flag_pixels(cube, used=info.good_band, **limits)
    valid = np.ones(cube.shape[:2], dtype=bool) if flags is None else flags == 0
    shares = {}
    if flags is not None:
        for flag in Quality:
            share = 100 * float(np.mean((flags & flag) != 0))
            if share:
                shares[str(flag.name).lower()] = share
    mean, std, noise = _spectra(cube, valid)
    bad = {
        "marked bad": [] if info.good_band is None else np.flatnonzero(~info.good_band).tolist(),
        "constant": np.flatnonzero(std == 0).tolist(),
        "mostly noise": np.flatnonzero((std > 0) & (mean < _LOW_SIGNAL * noise)).tolist(),
    }
    found = Quicklook(
        path,
        _facts(info, path, len(cube)),
        shares,
        mean,
        std,
        noise,
        bad,
        None if out is None else str(Path(out).absolute()),
    )
    if out is not None:
        write_atomically(Path(out), _page(found, info, cube, valid))
    return found


def _some_lines(frame: Any, info: SourceInfo) -> NDArray[Any]:
    height = info.shape[0]
    if height <= _LINES:
        return np.asarray(frame.read(0, height))
    starts = np.linspace(0, height - _RUN, _LINES // _RUN).astype(int)
    return np.concatenate([frame.read(int(s), int(s) + _RUN) for s in np.unique(starts)])


def _spectra(cube: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Any, Any, Any]:
    pixels = cube[valid].astype(np.float64)
    if not len(pixels):
        nothing = np.full(cube.shape[2], np.nan)
        return nothing, nothing, nothing
    pairs = valid[:, 1:] & valid[:, :-1]
    noise = np.zeros(cube.shape[2])
    for channel in range(cube.shape[2]):
        plane = cube[..., channel].astype(np.float64)
        steps = (plane[:, 1:] - plane[:, :-1])[pairs]
        if steps.size:
            noise[channel] = 1.4826 * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2)
    return pixels.mean(axis=0), pixels.std(axis=0), noise


def _facts(info: SourceInfo, path: str, looked: int) -> dict[str, Any]:
    height, width, channels = info.shape
    nm = info.wavelength
    references = find_references(path)
    found = [Path(r).name for r in references if r is not None]
    return {
        "size": f"{info.frames} frames of {height} lines x {width} samples x {channels} bands,"
        f" {info.dtype.name}",
        "looked at": f"{looked} of {height} lines",
        "wavelengths": "not stated in known units" if nm is None else f"{nm[0]:g} .. {nm[-1]:g} nm",
        "sensor": info.sensor,
        "quantity": info.quantity,
        "references": ", ".join(found) or None,
        "georeferenced": "yes" if info.geography is not None else None,
    }


def _page(found: Quicklook, info: SourceInfo, cube: NDArray[Any], valid: NDArray[np.bool_]) -> str:
    picked, words = pictures.display_channels(info.wavelength, cube.shape[2])
    planes = cube[:, :, list(picked)].astype(np.float64)
    picture = pictures.stretched(planes, valid)
    picture[~valid] = (220, 60, 50)
    image = f'<img alt="false colour" src="{pictures.png_uri(picture)}">'
    text = html.escape(str(found))
    title = html.escape(Path(found.source).name)
    caption = html.escape(f"False colour of {words}; flagged pixels are red.")
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>"
        "<style>body{font:15px system-ui;max-width:60em;margin:2em auto;padding:0 1em}"
        "pre{white-space:pre-wrap}img{image-rendering:pixelated;max-width:100%}</style>"
        f"<h1>{title}</h1><pre>{text}</pre><figure>{image}<figcaption>{caption}</figcaption>"
        f"</figure>{_spectrum(found, info)}</html>"
    )


def _spectrum(found: Quicklook, info: SourceInfo) -> str:
    x = np.arange(found.mean.size) if info.wavelength is None else info.wavelength
    figure = pictures.blank_figure(7.0, 3.2)
    axes = figure.subplots()
    low, high = found.mean - found.std, found.mean + found.std
    axes.fill_between(x, low, high, alpha=0.25, color="#4c78a8")
    axes.plot(x, found.mean, color="#4c78a8", label="mean, and one deviation")
    axes.plot(x, found.noise, color="#e45756", label="noise")
    for channel in sorted({c for channels in found.bad.values() for c in channels}):
        axes.axvline(x[channel], color="#bbbbbb", linewidth=1, zorder=0)
    axes.set_xlabel("channel" if info.wavelength is None else "wavelength, nm")
    axes.set_ylabel("stored value")
    axes.legend(frameon=False)
    return pictures.svg_text(figure)
