"""ENVI spectral libraries, against the spectra that were written."""

import numpy as np
import pytest

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import ChannelAxis
from hsi_batch.nodes.spectral_library import SpectralLibrary


def write(folder, spectra, **fields):
    stored = np.asarray(spectra, dtype="<f4")
    stored.tofile(folder / "lib.sli")
    fields = {
        "file type": "ENVI Spectral Library", "samples": stored.shape[1], "lines": len(stored),
        "bands": 1, "data type": 4, "interleave": "bsq", "byte order": 0,
        "wavelength": "{0.5, 0.6, 0.7}", "wavelength units": "Micrometers",
        "spectra names": "{grass, soil}", **fields,
    }  # fmt: skip
    text = "".join(f"{k} = {v}\n" for k, v in fields.items() if v is not None)
    (folder / "lib.hdr").write_text("ENVI\n" + text)
    return folder / "lib.sli"


SPECTRA = np.array([[1000, 2000, 4000], [3000, 3500, 3600]])


@pytest.mark.parametrize("suffix", [".sli", ".hdr"])
def test_spectra_names_wavelengths_and_scale(tmp_path, suffix):
    path = write(tmp_path, SPECTRA, **{"reflectance scale factor": 10000})
    library = SpectralLibrary.read(path.with_suffix(suffix))
    assert library.names == ("grass", "soil")
    assert library.quantity == "reflectance"
    np.testing.assert_allclose(library.wavelength, [500, 600, 700])
    np.testing.assert_allclose(library.spectra, SPECTRA / 10000)
    moved = library.on(ChannelAxis.of([550.0, 700.0]))
    np.testing.assert_allclose(moved.spectra[0], [0.15, 0.4])
    assert moved.quantity == "reflectance"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"wavelength units": "Unknown"}, "wavelength units = Nanometers"),
        ({"wavelength units": None}, "wavelength units = Nanometers"),
        ({"file type": "ENVI Standard"}, "not|expected 'ENVI Spectral Library'"),
        ({"lines": 3}, "36 were expected"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(tmp_path, fields, said):
    path = write(tmp_path, SPECTRA, **fields)
    with pytest.raises(PipelineError, match=said):
        SpectralLibrary.read(path)


def test_a_library_without_its_header_is_refused(tmp_path):
    path = write(tmp_path, SPECTRA)
    path.with_suffix(".hdr").unlink()
    with pytest.raises(PipelineError, match="header of the library was not found"):
        SpectralLibrary.read(path)
