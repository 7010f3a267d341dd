"""A disk that is full: one clear message, nothing lost, and on from there when there is space."""

import subprocess

import numpy as np
import pytest
import torch
import yaml
import zarr
from commands import chunks
from gradient_helpers import selection_pipeline, write_scenes
from recordings import write_envi

from hsi_batch.archive.records import Records
from hsi_batch.pipeline import Pipeline
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit_file import fit_file
from hsi_batch.training.callbacks import KeepLast
from hsi_batch.workflow import shipped

LINES, BLOCKS = 64, 30
RX = shipped() / "pipelines" / "rx_statistical.yaml"


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own; a function sets its size in kB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", place],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.decode().strip()}")

    def resize(kilobytes):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", place], check=True)
        return place

    yield resize
    subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Three cubes that cannot be compressed, 2.5 MB each."""
    folder = tmp_path_factory.mktemp("full") / "in"
    rng = np.random.default_rng(1)
    for i in range(3):
        cube = rng.integers(0, 65535, (640, 100, 20)).astype(np.uint16)
        write_envi(folder / f"s{i}.hdr", cube)
    return folder


def recorded(store, stage):
    """Blocks that are done according to the records."""
    records = Records(store.with_name(f"{store.name}.hsi-batch") / "records" / stage).load()
    return {key for key, record in records.items() if record.outcome == "done"}


def refused(done, store):
    assert (done.code, done.out) == (3, "")
    (said,) = [line for line in done.err.splitlines() if line.startswith("hsi-batch: ")]
    assert "there is no space left to write to (No space left on device)" in said
    assert "Make space and run the same command again; what is written stays." in said
    assert str(store) in said


def fill_and_resume(hsi, arguments, store, stage, array, disk, sizes):
    """Run out of space, make space, go on; returns nothing, checks everything."""
    disk(sizes[0])
    refused(hsi(*arguments), store)
    done = recorded(store, stage)
    assert 0 < len(done) < BLOCKS
    before = chunks(store)
    kept = [f"{k.session}/{array}/c.{k.frame}.{k.start // LINES}." for k in done]
    stamps = {
        file: before[file]
        for file in before
        if str(file.relative_to(store)).startswith(tuple(kept))
    }
    assert len(stamps) == len(done)
    # Still full: the same message, still nothing lost.
    refused(hsi(*arguments), store)
    assert recorded(store, stage) >= done
    done = recorded(store, stage)
    disk(sizes[1])
    again = hsi(*arguments, "--json")
    assert again.code == 0, again
    assert again.json["blocks"] == BLOCKS - len(done)
    after = chunks(store)
    assert all(after[file] == stamp for file, stamp in stamps.items())
    assert hsi("verify", store, "--json").json["damages"] == []
    assert not list(store.rglob("*.partial"))


def test_convert(hsi, recordings, disk, tmp_path, client):
    archive = disk(100_000) / "a.zarr"
    arguments = ["convert", recordings, "--archive", archive]
    fill_and_resume(
        hsi,
        [*arguments, "--block-lines", str(LINES)],
        archive,
        "convert",
        "cube",
        disk,
        (5_000, 50_000),
    )
    convert(recordings, tmp_path / "calm.zarr", block_lines=LINES, client=client)
    for i in range(3):
        for name in ("cube", "moments", "extrema", "sample", "checksum"):
            np.testing.assert_array_equal(
                zarr.open_array(archive, path=f"s{i}/{name}", mode="r")[:],
                zarr.open_array(tmp_path / "calm.zarr", path=f"s{i}/{name}", mode="r")[:],
            )


def test_score(hsi, recordings, disk, tmp_path, client):
    archive, fitted = tmp_path / "a.zarr", tmp_path / "f.yaml"
    convert(recordings, archive, block_lines=LINES, client=client)
    fit_file(RX, archive, fitted, client=client)
    scores = disk(100_000) / "s.zarr"
    arguments = ["score", fitted, "--archive", archive, "--out", scores]
    fill_and_resume(hsi, arguments, scores, "score", "scores", disk, (450, 50_000))


def test_fit_and_report(hsi, recordings, disk, tmp_path, client):
    archive, fitted, scores = tmp_path / "a.zarr", tmp_path / "f.yaml", tmp_path / "s.zarr"
    convert(recordings, archive, block_lines=LINES, client=client)
    fit_file(RX, archive, fitted, client=client)
    score = ["score", fitted, "--archive", archive, "--out", scores]
    assert hsi(*score).code == 0
    place = disk(8)
    (place / "filler").write_bytes(b"x" * 8192)
    report = ["report", scores, "--out", place / "r.html"]
    refused(hsi(*report), place / "r.html")
    fit = ["fit", RX, "--archive", archive, "--out", place / "f.yaml"]
    refused(hsi(*fit), place / "f.yaml")
    assert [p.name for p in place.iterdir()] == ["filler"]
    disk(50_000)
    assert hsi(*report).code == 0
    assert hsi(*fit).code == 0


@pytest.fixture(scope="module")
def training(tmp_path_factory, client):
    """A trainrun of a few epochs, on an archive with labels; its outputs go where it runs."""
    here = tmp_path_factory.mktemp("training")
    convert(write_scenes(here / "in"), here / "a.zarr", client=client)
    selection_pipeline().save(here / "selection.yaml")
    content = {
        "name": "full",
        "pipeline": str(here / "selection.yaml"),
        "data": {
            "data_module": "archive",
            "params": {"archive": str(here / "a.zarr"), "train": ["s0", "s1"], "val": "s2"},
        },
        "training": {"seed": 5, "trainer": {"max_epochs": 4, "deterministic": True}},
        "loss_nodes": ["bce"],
        "unfreeze_nodes": ["selector", "rx", "logit"],
    }
    (here / "run.yaml").write_text(yaml.safe_dump(content))
    return here / "run.yaml"


def test_train(hsi, training, disk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hsi("train", training, "--out", tmp_path / "calm.yaml").code == 0
    place = disk(20_000)
    train = ["train", training, "--out", place / "t.yaml"]
    # The state after the third epoch does not fit any more.
    kept, real = [], KeepLast.on_train_epoch_end

    def filling(self, trainer, module):
        kept.append(trainer.current_epoch)
        if len(kept) == 3:
            used = sum(file.stat().st_blocks // 2 for file in place.rglob("*") if file.is_file())
            disk(used + 8)
        real(self, trainer, module)

    monkeypatch.setattr(KeepLast, "on_train_epoch_end", filling)
    refused(hsi(*train), place / "t.yaml")
    monkeypatch.setattr(KeepLast, "on_train_epoch_end", real)
    refused(hsi(*train), place / "t.yaml")
    disk(20_000)
    again = hsi(*train, "--json")
    assert again.code == 0
    assert again.json["train"]["resumed"] >= 2
    one, two = (Pipeline.from_yaml(path) for path in (place / "t.yaml", tmp_path / "calm.yaml"))
    for name, node in one.nodes.items():
        for key, value in node.state_dict().items():
            assert torch.equal(value, two.nodes[name].state_dict()[key]), (name, key)
    assert sorted(path.name for path in place.rglob("*")) == ["t.pt", "t.yaml"]
