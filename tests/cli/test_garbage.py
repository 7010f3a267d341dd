"""Whatever is given instead of what was meant: one paragraph, the right code, nothing written."""

import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import xarray as xr
from commands import files_below


@pytest.fixture(scope="module")
def junk(made, tmp_path_factory):
    here = tmp_path_factory.mktemp("junk")
    (here / "bytes.yaml").write_bytes(bytes(range(256)) * 12)
    (here / "empty.yaml").write_text("")
    (here / "list.yaml").write_text("- archive: a.zarr\n- pipeline: x\n")
    (here / "scalar.yaml").write_text("hello\n")
    (here / "broken.yaml").write_text("archive: [a\nb: c\n")
    (here / "twice.yaml").write_text("archive: a\narchive: b\n")
    (here / "object.yaml").write_text("archive: !!python/object/apply:os.system ['true']\n")
    (here / "loop.yaml").write_text("&a [*a]\n")
    (here / "folder.yaml").mkdir()
    shutil.copy(made.fitted, here / "alone.yaml")
    shutil.copy(made.fitted, here / "badpt.yaml")
    (here / "badpt.pt").write_bytes(os.urandom(500))
    shutil.copy(made.fitted, here / "cut.yaml")
    weights = made.fitted.with_suffix(".pt").read_bytes()
    (here / "cut.pt").write_bytes(weights[: len(weights) // 2])
    shutil.copy(made.fitted, here / "dirpt.yaml")
    (here / "dirpt.pt").mkdir()
    xr.Dataset({"x": ("a", [1])}).to_zarr(here / "other.zarr", consolidated=False)
    (here / "half.zarr").mkdir()
    (here / "half.zarr" / "zarr.json").write_text("{")
    (here / "notes.txt").write_text("x")
    return SimpleNamespace(root=here, **{p.name.replace(".", "_"): p for p in here.iterdir()})


YAMLS = (
    "missing.yaml",
    "bytes.yaml",
    "empty.yaml",
    "list.yaml",
    "scalar.yaml",
    "broken.yaml",
    "twice.yaml",
    "object.yaml",
    "loop.yaml",
    "folder.yaml",
    "notes.txt",
)


def refused(done, code, *says):
    """One message on stderr, nothing on stdout."""
    assert done.code == code, done
    assert not done.out
    assert done.err.startswith("hsi-batch: ")
    for part in says:
        assert str(part) in done.err, done.err


@pytest.fixture
def untouched(made, junk, tmp_path, monkeypatch):
    """Checks that a refused command changed nothing anywhere."""
    monkeypatch.chdir(tmp_path)
    before = files_below(made.root, junk.root)
    yield
    assert files_below(made.root, junk.root) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", YAMLS)
def test_no_yaml_of_ours(hsi, made, junk, name):
    path = junk.root / name
    fit = ["--archive", made.archive, "--out", "f.yaml"]
    score = ["--archive", made.archive, "--out", "s.zarr"]
    refused(hsi("run", path), 2, name)
    refused(hsi("fit", path, *fit), 2, name)
    refused(hsi("score", path, *score), 2, name)
    # An empty cluster file is a good one: workers on this machine.
    if name != "empty.yaml":
        refused(hsi("score", made.fitted, *score, "--cluster", path), 2, name)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("alone.yaml", "not fitted"),
        ("badpt.yaml", "badpt.pt"),
        ("cut.yaml", "cut.pt"),
        ("dirpt.yaml", "dirpt.pt"),
    ],
)
def test_weights_that_are_missing_or_damaged(hsi, made, junk, name, says):
    done = hsi("score", junk.root / name, "--archive", made.archive, "--out", "s.zarr")
    if name == "alone.yaml":
        warned, _, rest = done.err.partition("\n")
        assert "the weights that this file was written with" in warned
        done = replace(done, err=rest)
    refused(done, 2, says)


@pytest.mark.usefixtures("untouched")
def test_a_pipeline_that_is_not_fitted(hsi, made):
    done = hsi("score", made.pipeline, "--archive", made.archive, "--out", "s.zarr")
    refused(done, 2, "RX_Statistical", "is not fitted", "Fit it first (hsi-batch fit)")


STORES = {
    "nothing": "there is nothing here",
    "notes.txt": "this is a file",
    "folder.yaml": "not a Zarr v3 group",
    "half.zarr": "not a Zarr v3 group",
    "other.zarr": "a Zarr group of format None",
}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", STORES)
def test_no_store_of_ours(hsi, made, junk, name):
    path, says = junk.root / name, STORES[name]
    for verb in ("ls", "show", "verify", "rm"):
        refused(hsi(verb, path), 3, path, says)
    refused(hsi("report", path, "--out", "r.html"), 3, path, says)
    refused(hsi("fit", made.pipeline, "--archive", path, "--out", "f.yaml"), 3, path, says)
    refused(hsi("score", made.fitted, "--archive", path, "--out", "s.zarr"), 3, path, says)
    if name != "nothing":
        refused(hsi("convert", made.recordings, "--archive", path), 3, path, says)
        outs = ["--archive", made.archive, "--out", path]
        refused(hsi("score", made.fitted, *outs), 3, path, says)


@pytest.mark.usefixtures("untouched")
def test_stores_of_the_other_kind(hsi, made):
    is_scores, is_archive = "this is a score store", "this is an archive"
    refused(hsi("convert", made.recordings, "--archive", made.scores), 3, is_scores)
    refused(hsi("rm", made.scores / "a"), 3, is_scores)
    where = ["--archive", made.scores, "--out"]
    refused(hsi("fit", made.pipeline, *where, "f.yaml"), 3, is_scores)
    refused(hsi("score", made.fitted, *where, "s.zarr"), 3, is_scores)
    where = ["--archive", made.archive, "--out", made.archive]
    refused(hsi("score", made.fitted, *where), 3, is_archive)
    refused(hsi("report", made.archive, "--out", "r.html"), 3, is_archive)


@pytest.mark.usefixtures("untouched")
def test_outputs_where_none_can_be(hsi, made, junk, tmp_path):
    folder, below = junk.root / "folder.yaml", junk.root / "notes.txt" / "x.yaml"
    fit = ["fit", made.pipeline, "--archive", made.archive, "--out"]
    refused(hsi(*fit, folder), 2, "this is a folder")
    refused(hsi(*fit, below), 2, "notes.txt is a file")
    refused(hsi(*fit, "f.txt"), 2, "f.txt", "another suffix", "f.yaml")
    refused(hsi(*fit, made.pipeline), 2, "overwrite")
    refused(hsi("report", made.scores, "--out", folder), 2, "this is a folder")
    refused(hsi("report", made.scores, "--out", below), 2, "notes.txt is a file")
    refused(hsi("convert", made.recordings, "--archive", below), 2, "notes.txt is a file")
    scoring = ["score", made.fitted, "--archive", made.archive, "--out", below]
    refused(hsi(*scoring), 2, "notes.txt is a file")
    refused(hsi("demo", junk.root / "notes.txt"), 2, "notes.txt is a file")
    # Root may write anywhere but here.
    refused(hsi("convert", made.recordings, "--archive", "/proc/a.zarr"), 2, "/proc", "written to")
    refused(hsi(*fit, "/proc/f.yaml"), 2, "/proc", "written to")
    refused(hsi("report", made.scores, "--out", "/proc/r.html"), 2, "/proc", "written to")


@pytest.mark.usefixtures("untouched")
def test_sources_that_are_none(hsi, made, junk):
    refused(hsi("convert", "nowhere", "--archive", "a.zarr"), 2, "nowhere")
    refused(hsi("convert", "nowhere/*.hdr", "--archive", "a.zarr"), 2, "nowhere/*.hdr")
    refused(hsi("convert", junk.root / "folder.yaml", "--archive", "a.zarr"), 2, "folder.yaml")
    both = ["convert", made.recordings, "nowhere", "--archive", "a.zarr"]
    refused(hsi(*both), 2, "nowhere")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--mode", "Reflectance"], "no processing modes"),
        (["--root", "/usr"], "not below the root /usr"),
        (["--annotations", "nope.json"], "nope.json"),
        (["--block-lines", "7"], "16, 32"),
        (["--cluster", "nope.yaml"], "nope.yaml"),
    ],
)
def test_settings_that_do_not_fit(hsi, made, arguments, says):
    refused(hsi("convert", made.recordings, "--archive", "a.zarr", *arguments), 2, says)


@pytest.mark.usefixtures("untouched")
def test_names_that_do_not_exist(hsi, made):
    scoring = ["score", made.fitted, "--archive", made.archive, "--out", "s.zarr"]
    refused(hsi(*scoring, "--frames", "c"), 2, "there is no session 'c'")
    refused(hsi(*scoring, "--frames", "a["), 2, "a[")
    refused(hsi(*scoring, "--frames", "where:'nonsense =='"), 2, "nonsense")
    refused(hsi(*scoring, "--output", "rx.score"), 2, "rx.score", "rx.scores")
    fitting = ["fit", made.pipeline, "--archive", made.archive, "--out", "f.yaml"]
    refused(hsi(*fitting, "--pixels", "all"), 2, "'all'", "labelled-normal")
    refused(hsi(*fitting, "--set", "nodes.rx"), 2, "nodes.rx", "a.b=value")
    refused(hsi(*fitting, "--set", "nodes.ry.hparams.eps=1"), 2, "'ry'")
    refused(hsi(*fitting, "--set", "nodes.rx.hparams.epz=1"), 2, "epz", "eps")
    refused(hsi("show", made.archive / "c"), 2, "there is no session 'c'", "hsi-batch ls")
    refused(hsi("rm", made.archive / "c"), 2, "there is no session 'c'", "hsi-batch ls")
    refused(hsi("rm", made.archive), 2, "this is a store, not a session", "STORE/SESSION")
