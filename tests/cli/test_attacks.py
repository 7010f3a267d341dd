"""Attacks that need more than one look: small files that grow, links, names, and terminals."""

import io
import json
import resource
import zipfile

import numpy as np
import pytest
import torch
from archive_helpers import cube_of, make_archive
from graphs import chain

from hsi_batch.archive.remove import remove_session
from hsi_batch.archive.store import state_folder
from hsi_batch.cluster import ExistingConfig, LocalConfig, refuse_strangers
from hsi_batch.errors import ConfigError, SourceError, StoreError
from hsi_batch.files import read_npz
from hsi_batch.nodes import RXGlobal
from hsi_batch.pipeline import Pipeline
from hsi_batch.readers.registry import open_source
from hsi_batch.stages.outputs import held_store
from hsi_batch.stages.report import report
from hsi_batch.wording import printable
from hsi_batch.workflow import run_workflow


@pytest.fixture(autouse=True)
def small():
    """No attack takes memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2**28


# --- small files that stand for large ones -------------------------------------------------------


def header(shape, descr="<f8"):
    buffer = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def bomb(path, name, head, size, others=()):
    """An ``.npz`` whose array ``name`` is ``size`` bytes of zeros, packed well."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for other, array in others:
            buffer = io.BytesIO()
            np.save(buffer, array)
            file.writestr(f"{other}.npy", buffer.getvalue())
        with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
            entry.write(head)
            for _ in range(size // 2**20):
                entry.write(bytes(2**20))


@pytest.mark.parametrize(
    ("name", "descr", "shape"),
    [("wavelengths", "<f8", (2**24,)), ("meta", f"<U{2**25}", ())],
)
def test_an_npz_that_unpacks_to_much_more(tmp_path, name, descr, shape):
    cube = ("cube", np.zeros((4, 3, 2), "u2"))
    bomb(tmp_path / "b.npz", name, header(shape, descr), 2**27, [cube])
    assert (tmp_path / "b.npz").stat().st_size < 2**19
    with pytest.raises(SourceError, match=r"expected (2 numbers|at most 67)"):
        open_source(str(tmp_path / "b.npz"))


def test_a_library_that_unpacks_to_much_more(tmp_path):
    bomb(tmp_path / "b.npz", "spectra", header((2**25,)), 2**28)
    with pytest.raises(ValueError, match="256 MiB"):
        read_npz(tmp_path / "b.npz")


def test_weights_that_unpack_to_much_more(tmp_path):
    path = chain(RXGlobal(name="rx")).save(tmp_path / "p.yaml")
    path.write_text(path.read_text().split("\n", 1)[1])
    weights = path.with_suffix(".pt")
    content = torch.load(weights, weights_only=True)
    # A view that repeats one number.
    content["state_dict"]["rx"]["mu"] = torch.zeros(1).expand(10**10)
    torch.save(content, weights)
    assert weights.stat().st_size < 10**5
    with pytest.raises(ConfigError, match="larger than what is stored of it"):
        Pipeline.from_yaml(path)
    # Storage that is packed.
    content["state_dict"]["rx"]["mu"] = torch.zeros(2**22)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as file, zipfile.ZipFile(weights, "w", 8) as packed:
        for entry in file.namelist():
            packed.writestr(entry, file.read(entry))
    with pytest.raises(ConfigError, match="unpacks to more than it holds"):
        Pipeline.from_yaml(path)


# --- links in the run state ---------------------------------------------------------------------


@pytest.mark.parametrize("part", ["", "partials", "records", "partials/x", "records/convert"])
def test_a_run_state_of_links_removes_nothing_elsewhere(tmp_path, part):
    store = tmp_path / "a.zarr"
    make_archive(store, {"s": cube_of(1), "t": cube_of(2)})
    home = tmp_path / "home"
    (home / "letters").mkdir(parents=True)
    (home / "letters" / "one.txt").write_text("dear")
    state = state_folder(store)
    if part == "":
        state.rename(tmp_path / "moved")
    else:
        (state / part).parent.mkdir(exist_ok=True)
    (state / part).symlink_to(home)
    with pytest.raises(StoreError, match="symbolic link"):
        remove_session(store, "s")
    with pytest.raises(StoreError, match="symbolic link"), held_store(str(store), "convert"):
        pass
    assert (home / "letters" / "one.txt").read_text() == "dear"
    assert (store / "s").is_dir()


# --- terminals ----------------------------------------------------------------------------------


def test_names_in_files_do_not_command_the_terminal(hsi, tmp_path):
    evil = "FX\x1b]0;owned\x07\x1b[2J\x9b31m"
    make_archive(tmp_path / "a.zarr", {"s": cube_of(1)}, sensor=evil)
    for words in (("ls",), ("show",)):
        done = hsi(*words, tmp_path / "a.zarr" / ("s" if words == ("show",) else ""))
        assert "FX" in done.out
        assert not set(done.out) & {"\x1b", "\x07", "\x9b"}
    done = hsi("check", tmp_path / "a\x1b[2J.yaml")
    assert "\x1b" not in done.err
    assert done.code == 2
    assert printable("line\nnext\tcell") == "line\nnext\tcell"


# --- schedulers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("localhost:8786", False),
        ("tls://[::1]:8786", False),
        ("tcp://10.0.0.1:8786", True),
        ("127.0.0.1.evil.example:8786", True),
        ("tcp://localhost@evil.example:8786", True),
        ("nonsense", True),
    ],
)
def test_a_workflow_names_no_scheduler_elsewhere(address, refused):
    config = ExistingConfig(type="existing", address=address)
    if not refused:
        refuse_strangers(config, "w.yaml")
        return
    with pytest.raises(ConfigError, match="--cluster FILE"):
        refuse_strangers(config, "w.yaml")
    refuse_strangers(LocalConfig(), "w.yaml")


def test_nor_by_a_file(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"address": "tcp://10.0.0.1:8786"}))
    (tmp_path / "w.yaml").write_text(
        "archive: a.zarr\nsources: [in]\ncluster: {type: existing, scheduler_file: s.json}\n"
    )
    with pytest.raises(ConfigError, match=r"w\.yaml: .*scheduler on another machine"):
        run_workflow(tmp_path / "w.yaml")


# --- files that are written over ----------------------------------------------------------------


def test_a_report_is_not_written_over_what_is_no_page(made, tmp_path):
    mine = tmp_path / ".bashrc"
    mine.write_text("alias ls='ls -l'\n")
    with pytest.raises(ConfigError, match="not written over"):
        report(made.scores, mine)
    assert mine.read_text() == "alias ls='ls -l'\n"
    page = tmp_path / "r.html"
    report(made.scores, page)
    report(made.scores, page, force=True)


# --- plugins ------------------------------------------------------------------------------------


def test_a_plugin_runs_only_if_the_command_line_names_it(hsi, tmp_path, monkeypatch):
    monkeypatch.setenv("HSI_BATCH_PLUGINS", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    sprung = tmp_path / "sprung"
    (tmp_path / "hsi_trap.py").write_text(f"open({str(sprung)!r}, 'w')\nNode = 1\n")
    path = tmp_path / "p.yaml"
    path.write_text(
        "plugins: [hsi_trap]\nnodes: {data: CU3SDataNode, n: hsi_trap.Node}\n"
        "connections: [[data.cube, n.data]]\n"
    )
    done = hsi("check", path)
    assert done.code == 2
    assert "hsi-batch --plugins hsi_trap COMMAND" in " ".join((done.out + done.err).split())
    assert not sprung.exists()
    done = hsi("--plugins", "hsi_trap", "check", path)
    assert "is no node" in (done.out + done.err)
    assert sprung.exists()
