"""Finding, loading and starting the Cuvis SDK, each time in a fresh process.

Where a package must be absent or old, the process sees a folder of links to the installed packages
in place of them, with that one left out or replaced.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from simulated_cuvis import Library, build_library, write_session
from simulated_cuvis.helpers import random_cubes, run
from simulated_cuvis.plugin import (  # noqa: F401
    SOURCE,
    library_fixture,
    simulated_cuvis_fixture,
    wanted_symbols,
)

import hsi_batch

OPEN = """
import sys
from hsi_batch.errors import SdkMissingError
from hsi_batch.readers.cu3s import Cu3sReader
try:
    with Cu3sReader().open(sys.argv[1]) as source:
        print("read", source.frame(0).read(0, 3).sum(), source.info.metadata["fps"])
except SdkMissingError as error:
    print(error.path)
    print(error.message)
"""


@pytest.fixture
def session(tmp_path: Path, library: Library) -> Path:
    return write_session(tmp_path / "a.cu3s", random_cubes(1), fps=5)


def one_sentence(output: str, session: Path) -> str:
    """Check that the output is a SdkMissingError of one sentence; return it."""
    path, message = output.rstrip("\n").split("\n")
    assert path == str(session)
    assert message.endswith(".")
    assert not re.search(r"[.!?] [A-Z]", message)
    return message


def packages(folder: Path, **own: str) -> dict[str, str]:
    """Build an environment without ``cuvis``, or with a ``cuvis`` of the given version and code."""
    folder.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith(("cuvis-", "cuvis.")) and entry.name != "cuvis":
            (folder / entry.name).symlink_to(entry)
    for version, code in own.items():
        info = folder / f"cuvis-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cuvis\nVersion: {version}\n")
        (folder / "cuvis").mkdir()
        (folder / "cuvis" / "__init__.py").write_text(code)
    root = Path(hsi_batch.__file__).parent.parent
    return {"PYTHONPATH": f"{root}{os.pathsep}{folder}"}


def run_with(environment: dict[str, str], session: Path) -> str:
    """Run :data:`OPEN` with no site-packages but those of ``environment``."""
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", OPEN, str(session)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# ---------------------------------------------------------------------- what is missing


def test_the_module_needs_no_cuvis(tmp_path: Path) -> None:
    script = """
import os, sys
os.environ.pop("CUVIS", None)
from hsi_batch.readers.cu3s import Cu3sReader
print(Cu3sReader().skip_reason("white.cu3s") is not None)
print([name for name in sys.modules if name.startswith("cuvis")])
"""
    assert run(script).split("\n")[:2] == ["True", "[]"]


def test_cuvis_is_not_set(session: Path) -> None:
    message = one_sentence(run("import os; del os.environ['CUVIS']\n" + OPEN, session), session)
    assert message.startswith("The environment variable CUVIS is not set")
    assert "libcuvis.so" in message


def test_cuvis_names_a_folder_without_the_library(tmp_path: Path, session: Path) -> None:
    message = one_sentence(run(OPEN, session, CUVIS=str(tmp_path)), session)
    assert message.startswith("The Cuvis library cannot be loaded (ImportError")
    assert str(tmp_path) in message
    assert "libcuvis.so" in message


def test_a_library_of_another_machine(tmp_path: Path, session: Path) -> None:
    (tmp_path / "libcuvis.so").write_bytes(b"MZ, not ELF")
    message = one_sentence(run(OPEN, session, CUVIS=str(tmp_path)), session)
    assert message.startswith("The Cuvis library cannot be loaded (ImportError")


def test_the_package_is_not_installed(tmp_path: Path, session: Path) -> None:
    message = one_sentence(run_with(packages(tmp_path / "site"), session), session)
    assert message.startswith("Reading .cu3s files needs the cuvis package")
    assert 'pip install "hsi-batch[cu3s]"' in message
    assert "CUVIS" in message


def test_the_package_is_too_old_to_be_imported(tmp_path: Path, session: Path) -> None:
    code = "print('imported'); import sys; sys.exit(1)"
    environment = packages(tmp_path / "site", **{"3.5.3.2": code})
    message = one_sentence(run_with(environment, session), session)
    assert message.startswith("cuvis 3.5.3.2 is too old")
    assert 'pip install "hsi-batch[cu3s]"' in message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; sys.exit(1)", "library cannot be loaded (SystemExit: 1)"),
        ("import sys; sys.nothing", "library cannot be loaded (AttributeError"),
        ("import nothing_like_it", "package cannot be imported (ModuleNotFoundError"),
        ("raise OSError('no libcudart')", "library cannot be loaded (OSError: no libcudart)"),
    ],
)
def test_an_import_that_fails(tmp_path: Path, session: Path, code: str, reason: str) -> None:
    environment = packages(tmp_path / "site", **{"3.6.0": code})
    message = one_sentence(run_with(environment, session), session)
    assert reason in message
    assert 'pip install "hsi-batch[cu3s]"' in message


# ---------------------------------------------------------------------- start


def test_a_start_that_fails(session: Path) -> None:
    message = one_sentence(run(OPEN, session, SIMULATED_CUVIS_INIT="-1"), session)
    assert message.startswith("The Cuvis SDK could not start (SDKException: simulated: init")
    assert "CUVIS_SETTINGS" in message


def test_settings_are_respected(tmp_path: Path, session: Path) -> None:
    script = """
import ctypes, os
library = ctypes.CDLL(os.environ["CUVIS"] + "/libcuvis.so")
library.sim_init_settings.restype = ctypes.c_char_p
print(library.sim_init_settings().decode(), library.sim_init_level(), library.sim_calls(b"init"))
"""
    out = run(OPEN + script, session, CUVIS_SETTINGS=str(tmp_path))
    assert out.split("\n")[1] == f"{tmp_path} 2 1"


def test_settings_that_are_not_there(tmp_path: Path, session: Path) -> None:
    out = run(OPEN, session, CUVIS_SETTINGS=str(tmp_path / "none"))
    message = one_sentence(out, session)
    assert message.startswith("The environment variable CUVIS_SETTINGS is")


def test_a_retry_after_failure_can_succeed(tmp_path: Path, session: Path) -> None:
    """What is put right in a running process, a notebook say, is found the next time."""
    script = f"""
import os
os.environ["CUVIS_SETTINGS"] = "/no/such/folder"
{OPEN}
del os.environ["CUVIS_SETTINGS"]
{OPEN}
"""
    assert run(script, session).split("\n")[2].startswith("read ")


# ---------------------------------------------------------------------- the simulated library


def test_the_library_is_complete(library: Library) -> None:
    """Also for ``-W error`` (as everywhere here) and with all symbols bound at once."""
    script = "import cuvis; info = cuvis.binding.info(); print(info.is_complete, info.library_path)"
    assert run(script, LD_BIND_NOW="1").split() == ["True", str(library.path)]
    assert len(wanted_symbols()) == 226


def test_a_library_without_a_minor_function(tmp_path: Path, session: Path) -> None:
    """An older library warns at import and raises at the call; it still reads."""
    omit = ["cuvis_session_file_get_fps", "cuvis_measurement_deep_copy"]
    folder = build_library(tmp_path / "old", omit=omit).parent
    out = run(OPEN, session, CUVIS=str(folder))
    assert out.startswith("read ")
    assert out.split()[2] == "None"
    # The same without our reader: the warning is an error of the import.
    script = """
try:
    import cuvis
except UserWarning as warning:
    print(warning)
"""
    assert "cuvis_session_file_get_fps" in run(script, CUVIS=str(folder))


def test_a_library_without_a_needed_function(tmp_path: Path, session: Path) -> None:
    omit = ["cuvis_proc_cont_apply", "cuvis_measurement_get_data_string_length"]
    folder = build_library(tmp_path / "old", omit=omit[:1]).parent
    message = one_sentence(run(OPEN, session, CUVIS=str(folder)), session)
    assert "lacks cuvis_proc_cont_apply;" in message
    assert "SIMULATED CUVIS" in message
    assert "CUBERT SDK" in message


def test_structures_as_the_extension_sees_them(tmp_path: Path, library: Library) -> None:
    """Every field arrives through the real extension, none in the place of another."""
    texts = ("name", "comment", "product_name", "serial_number", "assembly", "session_name")
    numbers = {"averages": -3, "session_no": -5, "sequence_no": 6, "frame_id": 2**40, "flags": 2}
    instants = {"capture_time": 1_700_000_000_000, "factory_calibration": 1_600_000_000_000}
    own = {"integration_time": 0.1, "distance": 1e300, **numbers, **instants}
    cube = random_cubes(1)
    path = write_session(
        tmp_path / "a.cu3s", cube, stored="Raw", mode="Raw", **own, **{t: t for t in texts}
    )
    script = """
import cuvis, sys
m = cuvis.SessionFile(sys.argv[1])[0]
print(m.name, m.comment, m.product_name, m.serial_number, m.assembly, m.session_info.name, m.path)
print(m.averages, m.session_info.session_number, m.session_info.sequence_number, m.frame_id)
print(m.integration_time, m.distance, m.processing_mode.name, *m.measurement_flags)
print(m.capture_time.timestamp(), m.factory_calibration.timestamp())
gps, info = m.data["GPS_data"], m.data["IMAGE_info"]
print(gps.longitude, gps.latitude, gps.altitude, gps.time.timestamp())
print(info.averages, info.temperature, info.gain, info.readout_time.timestamp(), info.width)
print(info.height, info.raw_frame_id, info.pixel_format, info.integration_time)
print(m.data["dark_ref"], m.data["preview"].shape, m.data["preview"].wavelength)
print(m.data["cube"].shape, m.data["cube"].wavelength)
"""
    assert run(script, path).splitlines() == [
        f"name comment product_name serial_number assembly session_name {path}",
        f"-3 -5 6 {2**40}",
        "0.1 1e+300 Raw POOR_REFERENCE",
        "1700000000.0 1600000000.0",
        "9.98 48.4 480.0 1700000000.0",
        "3 41.5 1.25 1700000000.001 410",
        f"275 {2**40} Mono12 7.5",
        "dark_ref (2, 2, 3) None",
        "(3, 4, 5) [400, 410, 420, 430, 440]",
    ]


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("uint16_t channels;\n  int32_t format", "uint32_t channels;\n  int32_t format"),
        ("double integration_time;\n  int32_t averages", "int32_t averages"),
        ("uint64_t frame_id;\n} metadata_t", "uint32_t frame_id;\n} metadata_t"),
        ("double temperature, gain", "float temperature, gain"),
        ("int32_t processing_mode, allow_recalib", "int16_t processing_mode, allow_recalib"),
    ],
)
def test_a_layout_that_has_moved_does_not_compile(tmp_path: Path, was: str, becomes: str) -> None:
    text = SOURCE.read_text()
    assert text.count(was) == 1
    source = tmp_path / "moved.c"
    source.write_text(text.replace(was, becomes))
    with pytest.raises(RuntimeError, match=r"has moved|has another size"):
        build_library(tmp_path / "library", source=source)


def test_no_compiler_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="no C compiler"):
        build_library(tmp_path / "library")
