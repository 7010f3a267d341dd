"""Named spectra from small files."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hsi_batch.documents import read_yaml
from hsi_batch.envi_library import read_envi_library
from hsi_batch.errors import ConfigError, PipelineError, SourceError, did_you_mean
from hsi_batch.files import read_npz
from hsi_batch.nodes.axis import ChannelAxis

__all__ = ["SpectralLibrary"]

#: Nanometres that wavelengths may differ by and still be the same channel.
_SAME = 0.01


@dataclass(frozen=True, eq=False)
class SpectralLibrary:
    """Spectra with names and, where they are known, wavelengths.

    Attributes
    ----------
    names : tuple of str
    spectra : numpy.ndarray of float64, shape (K, C)
    wavelength : numpy.ndarray of float64, shape (C,), optional
        Nanometres, ascending.
    quantity : str, optional
        What the values are, ``reflectance`` or ``radiance``, if the file says it.

    Examples
    --------
    >>> library = SpectralLibrary.of({"a": [1.0, 2.0, 3.0]}, [400.0, 500.0, 600.0])
    >>> library.on(ChannelAxis.of([450.0, 600.0])).spectra
    array([[1.5, 3. ]])
    """

    names: tuple[str, ...]
    spectra: NDArray[np.float64]
    wavelength: NDArray[np.float64] | None = None
    quantity: str | None = None

    @classmethod
    def of(cls, spectra: Any, wavelength: Any = None, *, where: str = "targets") -> Self:
        """From a mapping of name to values, or a list of spectra, which are named by number.

        Raises
        ------
        hsi_batch.errors.PipelineError
            No spectrum, unequal lengths, values that are no finite numbers, or wavelengths that do
            not ascend; the message begins with ``where``.
        """
        named = spectra if isinstance(spectra, dict) else dict(enumerate(spectra or ()))
        if not named:
            raise PipelineError(f"{where} holds no spectrum.", hint="Put at least one into it.")
        try:
            rows = [np.array(values, dtype=np.float64) for values in named.values()]
            axis = None if wavelength is None else np.array(wavelength, dtype=np.float64)
        except (TypeError, ValueError):
            raise PipelineError(
                f"{where} holds values that are no numbers.", hint="Remove or mend these spectra."
            ) from None
        lengths = {row.size for row in rows}
        if len(lengths) > 1:
            raise PipelineError(
                f"{where} holds spectra of {sorted(lengths)} channels.",
                hint="Give all of them the same channels.",
            )
        values = np.concatenate(rows, axis=None).reshape(len(rows), -1)
        flat = values.size and all(row.ndim == 1 for row in rows)
        if not (flat and np.isfinite(values).all()):
            raise PipelineError(
                f"{where} holds values that are no finite numbers.",
                hint="Remove or mend these spectra.",
            )
        if axis is not None and (axis.shape != values.shape[1:] or np.any(~(np.diff(axis) > 0))):
            raise PipelineError(
                f"{where} has {np.size(axis)} wavelengths for {values.shape[1]} channels; one per"
                " channel is needed, ascending, in nm."
            )
        return cls(tuple(str(name) for name in named), values, axis)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a library by its extension.

        ``.yaml``: ``spectra`` (name to list of values) and optionally ``wavelength`` (nm).
        ``.csv``: a header of names, a row per channel; a first column named ``wavelength`` or
        ``wavelength_nm`` holds nanometres. A first line ``# quantity: reflectance`` may say what
        the values are; in the other files ``quantity`` does.
        ``.npz``: ``spectra`` (K, C), and optionally ``names`` (K,) and ``wavelength`` (C,).
        ``.sli`` (or its ``.hdr``): an ENVI spectral library, in physical values.

        Raises
        ------
        hsi_batch.errors.PipelineError
            The file is not there, of another kind, or does not hold what is said above.
        """
        source = Path(path)
        if source.suffix.lower() in (".sli", ".hdr"):
            return cls._of_envi(source)
        readers = {".yaml": _yaml, ".yml": _yaml, ".csv": _csv, ".npz": _npz}
        reader = readers.get(source.suffix.lower())
        if reader is None:
            raise PipelineError(
                f"library {source} is not a .yaml, .csv, .npz or .sli file.",
                hint="Save the spectra in one of these (see SpectralLibrary.read).",
            )
        try:
            spectra, wavelength, quantity = reader(source)
        except FileNotFoundError:
            raise PipelineError(
                f"library {source} does not exist.",
                hint="A path in a pipeline file is relative to that file.",
            ) from None
        except (OSError, KeyError, ValueError, csv.Error, ConfigError) as error:
            raise PipelineError(
                f"library {source} cannot be read: {error}", hint="Check the path and the format."
            ) from None
        found = cls.of(spectra, wavelength, where=f"library {source}")
        return replace(found, quantity=quantity)

    @classmethod
    def _of_envi(cls, path: Path) -> Self:
        try:
            found = read_envi_library(path)
        except SourceError as error:
            raise PipelineError(
                f"library {path} cannot be read: {error.message}", hint=error.hint
            ) from None
        order = slice(None) if found.wavelength is None else np.argsort(found.wavelength)
        axis = None if found.wavelength is None else found.wavelength[order]
        named = dict(zip(found.names, found.spectra[:, order], strict=True))
        return replace(cls.of(named, axis, where=f"library {path}"), quantity=found.quantity)

    def pick(self, names: list[str]) -> Self:
        """Only the spectra of these names, in their order."""
        for name in names:
            if name not in self.names:
                raise PipelineError(
                    f"names: there is no spectrum {name!r}.{did_you_mean(name, self.names)}",
                    hint=f"There are: {', '.join(self.names)}.",
                )
        rows = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), spectra=self.spectra[rows])

    def on(self, axis: ChannelAxis) -> Self:
        """The spectra at the channels of an axis.

        Where both sides know wavelengths and they differ, values are interpolated linearly;
        otherwise there must be one value per channel.
        """
        mine, theirs = self.wavelength, axis.wavelength
        if mine is None or theirs is None:
            if self.spectra.shape[1] != axis.size:
                knows = "the library has" if mine is None else "the data have"
                raise PipelineError(
                    f"the targets have {self.spectra.shape[1]} values for {axis.size} channels,"
                    f" and {knows} no wavelengths to match them by.",
                    hint="Give one value per channel of the node's input, or wavelengths.",
                )
            return self
        if mine.shape == theirs.shape and np.abs(mine - theirs).max() <= _SAME:
            return self
        if theirs.min() < mine[0] - _SAME or theirs.max() > mine[-1] + _SAME:
            raise PipelineError(
                f"the targets are known from {mine[0]:g} to {mine[-1]:g} nm, the data have"
                f" {theirs.min():g} to {theirs.max():g} nm.",
                hint="Keep the range that both have (BandpassByWavelength).",
            )
        moved = np.array([np.interp(theirs, mine, spectrum) for spectrum in self.spectra])
        return replace(self, spectra=moved, wavelength=theirs)


def _yaml(path: Path) -> tuple[Any, Any, str | None]:
    found = read_yaml(path).data
    content = found if isinstance(found, dict) else {}
    if not isinstance(content.get("spectra"), dict):
        raise ValueError("it needs a mapping `spectra` from name to values")  # noqa: TRY004
    unknown = sorted(set(content) - {"spectra", "wavelength", "quantity"})
    if unknown:
        raise ValueError(f"it has unknown keys {unknown}; known are spectra, wavelength, quantity")
    return content["spectra"], content.get("wavelength"), content.get("quantity")


def _csv(path: Path) -> tuple[Any, Any, str | None]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    quantity = None
    while rows and rows[0][0].lstrip().startswith("#"):
        key, _, value = ",".join(rows.pop(0)).lstrip("# ").partition(":")
        quantity = value.strip() if key.strip() == "quantity" else quantity
    if not rows:
        raise ValueError("it is empty")
    names = [name.strip() for name in rows[0]]
    if any(len(row) != len(names) for row in rows):
        raise ValueError(f"a row does not have the {len(names)} columns of the header")
    if len(set(names)) < len(names):
        raise ValueError("two columns have the same name")
    columns = {name: [float(row[i]) for row in rows[1:]] for i, name in enumerate(names)}
    known = names[0].lower() in ("wavelength", "wavelength_nm")
    wavelength = columns.pop(names[0]) if known else None
    return columns, wavelength, quantity


def _npz(path: Path) -> tuple[Any, Any, str | None]:
    stored = read_npz(path)
    spectra = np.atleast_2d(stored["spectra"])
    names = np.atleast_1d(stored.get("names", np.arange(len(spectra))))
    wavelength = stored.get("wavelength")
    if len(names) != len(spectra):
        raise ValueError(f"it has {len(names)} names for {len(spectra)} spectra")
    quantity = str(stored["quantity"]) if "quantity" in stored else None
    return dict(zip(map(str, names), spectra, strict=True)), wavelength, quantity
