"""Data modules: what they convert and when, which frames they choose, and their batches."""

import os

import numpy as np
import pytest
import torch
from archive_helpers import make_archive
from recordings import run_lengths, scene, write_cu3s, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.data import (
    ArchiveDataModule,
    MultiCu3sDataModule,
    SingleCu3sDataModule,
    cache_folder,
)
from hsi_batch.errors import ConfigError, DataWarning, SelectionError, SourceError
from hsi_batch.stages import convert as convert_stage


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, client):
    monkeypatch.setenv("HSI_BATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recording(path, frames=4, seed=0, **options):
    cubes, masks = zip(*[scene(seed + i) for i in range(frames)], strict=True)
    write_npz(
        path, np.stack(cubes), mask=np.stack(masks), wavelength=np.arange(8) * 10.4 + 450, **options
    )
    return np.stack(cubes), np.stack(masks)


@pytest.fixture
def conversions(monkeypatch):
    """Counts the conversions that do something."""
    runs = []
    execute = convert_stage._execute

    def counted(run, plan, *arguments):
        runs.append(plan)
        return execute(run, plan, *arguments)

    monkeypatch.setattr(convert_stage, "_execute", counted)
    return runs


def test_a_recording_is_converted_once(here, conversions):
    cube, _ = recording(here / "s.npz")
    for path in ("s.npz", here / "s.npz"):
        module = SingleCu3sDataModule(path)
        module.setup("fit")
        np.testing.assert_array_equal(module.archive["s"].cube.values, cube)
    assert len(conversions) == 1
    assert module.archive.path.parent == here / "cache"
    # The bytes decide, not the time; labels that appear make an archive of their own.
    os.utime(here / "s.npz", ns=(1, 1))
    SingleCu3sDataModule("s.npz").setup()
    assert len(conversions) == 1
    changed, _ = recording(here / "s.npz", seed=50)
    module = SingleCu3sDataModule("s.npz")
    np.testing.assert_array_equal(module.archive["s"].cube.values, changed)
    assert len(conversions) == 2
    recording(here / "other.npz")
    labelled = SingleCu3sDataModule("s.npz", annotation_json_path=here / "other.npz")
    assert labelled.archive.path != module.archive.path


def test_modes_of_the_sdk_have_archives_of_their_own(here, simulated_cuvis, conversions):
    cubes = [scene(i, lines=8, samples=6)[0] for i in range(2)]
    write_cu3s(here / "s.cu3s", [{"Reflectance": c, "Raw": c + 1} for c in cubes])
    for mode, more in (("Reflectance", 0), ("Raw", 1), ("reflectance", 0)):
        module = SingleCu3sDataModule("s.cu3s", processing_mode=mode, cache_dir="own")
        np.testing.assert_array_equal(module.archive["s"].cube[0].values, cubes[0] + more)
    assert module.archive.path.parent.resolve() == here / "own"
    assert len({plan.archive for plan in conversions}) == len(conversions)


def test_the_cache_folder(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HSI_BATCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x/cache")
    assert str(cache_folder()) == "/x/cache/hsi_batch"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder().parts[-2:] == (".cache", "hsi_batch")


def test_frames_by_number(here):
    recording(here / "s.npz", frames=6)
    module = SingleCu3sDataModule("s.npz", train_ids=[0, "2-3"], val_ids=[5], batch_size=2)
    assert list(module.selection("train").frames["s"]) == [0, 2, 3]
    assert len(module.selection("predict")) == 6
    with pytest.raises(ConfigError, match=r"no frames for test\. Give it some \(test_ids"):
        module.setup("test")
    with pytest.raises(SelectionError, match=r"s\[6\].*outside 0\.\.5"):
        SingleCu3sDataModule("s.npz", train_ids=[6]).setup("fit")
    undivided = SingleCu3sDataModule("s.npz")
    assert len(undivided.selection("train")) == len(undivided.selection("val")) == 6


@pytest.mark.parametrize("wrong", [[-1], ["a"], [1.5], [True], ["5-3"], ["0-9:0"]])
def test_wrong_numbers(wrong):
    with pytest.raises(ConfigError, match="train_ids"):
        SingleCu3sDataModule("s.npz", train_ids=wrong)


def test_batches(here):
    cubes, masks = recording(here / "s.npz", frames=5)
    loader = SingleCu3sDataModule("s.npz", train_ids=["0-4"], batch_size=2).train_dataloader()
    for _ in range(2):
        batches = list(loader)
        assert [len(b["cube"]) for b in batches] == [2, 2, 1] == [2] * (len(loader) - 1) + [1]
    first = batches[0]
    assert first["cube"].dtype == torch.uint16
    np.testing.assert_array_equal(first["cube"].numpy(), cubes[:2])
    np.testing.assert_array_equal(first["mask"].numpy(), masks[:2])
    assert first["mask"].dtype == torch.int32
    np.testing.assert_array_equal(first["wavelengths"][0], np.rint(np.arange(8) * 10.4 + 450))
    assert (first["mesu_index"].tolist(), first["stem"]) == ([0, 1], ["s", "s"])
    assert bool(first["valid"].all())


def test_batches_hold_frames_of_one_shape(here):
    rng = np.random.default_rng(0)
    shapes = {"a": (2, 6, 4, 3), "b": (1, 6, 4, 3), "c": (1, 5, 4, 3)}
    cubes = {k: rng.integers(0, 9, s).astype(np.uint16) for k, s in shapes.items()}
    make_archive(here / "a.zarr", cubes, lines="frame")
    module = ArchiveDataModule("a.zarr", train=["a", "b", "c[0][y=1:4]"], batch_size=4)
    whole, part = module.train_dataloader()
    assert whole["stem"] == ["a", "a", "b"]
    assert bool((whole["mask"] == -1).all())
    assert "wavelengths" not in whole
    np.testing.assert_array_equal(part["cube"][0].numpy(), cubes["c"][0, 1:4])


def test_a_folder(here, simulated_cuvis, conversions):
    cubes = {name: [scene(ord(name), lines=8, samples=6)[0]] for name in "abc"}
    for name in "ab":
        write_cu3s(here / "in" / f"{name}.cu3s", cubes[name])
    MultiCu3sDataModule("in").setup("fit")
    write_cu3s(here / "in" / "c.cu3s", cubes["c"])
    (here / "in" / "b.cu3s").unlink()
    module = MultiCu3sDataModule("in", train="glob:*", val=["c"])
    assert module.selection("train").sessions == ("a", "c")
    assert module.selection("val").sessions == ("c",)
    assert [len(plan.todo) for plan in conversions] == [2, 1]
    with pytest.raises(ConfigError, match=r"holds no \.cu3s files"):
        MultiCu3sDataModule(".").setup("fit")
    with pytest.raises(ConfigError, match=r"holds 2 \.cu3s files"):
        SingleCu3sDataModule(data_dir="in").setup("fit")


def test_what_cannot_be_read(here, simulated_cuvis):
    (here / "in").mkdir()
    (here / "in" / "bad.cu3s").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="no recording can be read"):
        SingleCu3sDataModule("in/bad.cu3s").setup("fit")
    write_cu3s(here / "in" / "good.cu3s", [scene(0, lines=8, samples=6)[0]])
    module = MultiCu3sDataModule("in")
    with pytest.warns(DataWarning, match="recordings were left out.*bad"):
        module.setup("fit")
    assert module.selection("train").sessions == ("good",)


def test_annotations_by_name(here, simulated_cuvis):
    import json

    cube, mask = scene(3, lines=8, samples=6)
    write_cu3s(here / "s.cu3s", [cube])
    coco = {
        "images": [{"id": 0, "height": 8, "width": 6, "file_name": "0"}],
        "categories": [{"id": 0, "name": "background"}, {"id": 2, "name": "stone"}],
        "annotations": [
            {
                "id": 0,
                "image_id": 0,
                "category_id": 2,
                "iscrowd": 1,
                "segmentation": {"size": [8, 6], "counts": run_lengths(mask)},
            }
        ],
    }
    (here / "labels.json").write_text(json.dumps(coco))
    (batch,) = SingleCu3sDataModule("s.cu3s", "labels.json").predict_dataloader()
    np.testing.assert_array_equal(batch["mask"][0].numpy(), mask * 2)
    with pytest.raises(ConfigError, match="no such file of annotations"):
        SingleCu3sDataModule("s.cu3s", "label.json").setup("fit")


def test_an_archive(here):
    make_archive(here / "a.zarr", {"x": np.ones((3, 4, 4, 2), np.uint16)})
    module = ArchiveDataModule(open_archive("a.zarr"), train="x[0:2]", test=["x[2]"])
    assert [len(module.selection(s)) for s in ("train", "test", "predict")] == [2, 1, 3]
    with pytest.raises(ConfigError, match="stage 'fitting'"):
        module.setup("fitting")
    with pytest.raises(ConfigError, match="batch_size 0"):
        ArchiveDataModule("a.zarr", batch_size=0)
