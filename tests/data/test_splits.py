"""Selectors and constraints of splits."""

import json

import numpy as np
import pytest
from archive_helpers import make_archive

from hsi_batch.archive.session import Session
from hsi_batch.data import ArchiveDataModule, DataConfig, DataSplitConfig
from hsi_batch.data.config import data_module
from hsi_batch.data.recordings import MultiCu3sDataModule, SingleCu3sDataModule
from hsi_batch.errors import ConfigError, DataWarning, SelectionError


@pytest.fixture
def archive(tmp_path):
    """a (3 frames) and b (2), of which frame 1 of b has a labelled pixel."""
    path = tmp_path / "a.zarr"
    cubes = {name: np.ones((n, 4, 4, 2), np.uint16) for name, n in (("a", 3), ("b", 2))}
    for session, source in (("a", "/in/x/a.cu3s"), ("b", "/in/y/b.cu3s")):
        root = make_archive(
            path, {session: cubes[session]}, classes={0: "background", 1: "stone"}, lines="frame"
        )
        root[session].attrs["source"] = {"path": source}
    for session in "ab":
        labels = Session.open(path, session, "r+").group["label"]
        labels[:] = 0
    labels[1, 3, 3] = 1
    return path


def frames(archive, **splits):
    found = ArchiveDataModule(archive, splits=splits).selection("train")
    return [f"{session}{frame}" for session, frame, _ in found]


ALL = {"kind": "all"}


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        ([ALL], "a0 a1 a2 b0 b1"),
        ([{"kind": "files", "paths": ["y/b.cu3s"]}], "b0 b1"),
        ([{"kind": "file_indices", "source": "/in/x/a.cu3s", "ids": ["1-2"]}], "a1 a2"),
        ([{"kind": "dir_indices", "ids": [0, 3]}], "a0 b0"),
        ([{"kind": "stems", "stems": ["a"]}], "a0 a1 a2"),
        ([{"kind": "glob", "pattern": "*/y/*"}, {"kind": "dir_indices", "ids": [1]}], "a1 b0 b1"),
        ([{"kind": "categories", "any_of": ["stone"]}], "b1"),
        ([{"kind": "except", "of": [ALL, {"kind": "stems", "stems": ["a"]}]}], "b0 b1"),
        (
            [
                {
                    "kind": "intersect",
                    "of": [
                        {"kind": "dir_indices", "ids": ["2-3"]},
                        {"kind": "glob", "pattern": "a"},
                    ],
                }
            ],
            "a2",
        ),
        ([{"kind": "union", "of": [{"kind": "glob", "pattern": "b"}, ALL]}], "a0 a1 a2 b0 b1"),
    ],
)
def test_selectors(archive, selectors, expected):
    assert frames(archive, train=selectors) == expected.split()


def test_what_matches_nothing(archive):
    with pytest.raises(SelectionError, match="matches no frame"):
        frames(archive, train=[{"kind": "stems", "stems": ["c"]}])
    with pytest.raises(SelectionError, match=r"no session was converted from 'c\.cu3s'"):
        frames(archive, train=[{"kind": "files", "paths": ["c.cu3s"]}])
    with pytest.warns(DataWarning, match=r"\[9\] match nothing"):
        assert frames(archive, train=[{"kind": "dir_indices", "ids": [1, 9]}]) == ["a1"]
    with pytest.raises(ConfigError, match="stems takes stems; found pattern"):
        frames(archive, train=[{"kind": "stems", "pattern": "c"}])
    with pytest.raises(ConfigError, match="give one of them"):
        ArchiveDataModule(archive, train="a", splits={"train": [ALL]})


@pytest.mark.parametrize(
    ("kind", "val", "why"),
    [
        ("no_split_overlap", {"kind": "dir_indices", "ids": [1]}, "frame 1 of a is in train"),
        ("no_source_overlap", {"kind": "dir_indices", "ids": [2]}, "a is in train and in val"),
        ("no_train_anomalous", {"kind": "stems", "stems": ["b"]}, None),
    ],
)
def test_constraints(archive, kind, val, why):
    train = [{"kind": "dir_indices", "ids": [0, 1]}]
    constraints = [{"kind": kind}]
    if why is None:
        assert frames(archive, train=train, val=[val], constraints=constraints) == ["a0", "a1"]
        train, why = [ALL], "frame 1 of b has labelled anomalies"
    with pytest.raises(ConfigError, match=why):
        frames(archive, train=train, val=[val], constraints=constraints)
    constraints[0]["severity"] = "warn"
    with pytest.warns(DataWarning, match=why):
        frames(archive, train=train, val=[val], constraints=constraints)


def test_a_file_of_splits(archive, tmp_path):
    base = {"train": [{"kind": "stems", "stems": ["a"]}], "val": [ALL]}
    (tmp_path / "splits.json").write_text(json.dumps(base))
    config = DataSplitConfig.of({"splits_path": str(tmp_path / "splits.json"), "train": [ALL]})
    assert config.train[0].kind == config.val[0].kind == "all"
    with pytest.raises(ConfigError, match="cannot be read"):
        DataSplitConfig.of({"splits_path": str(tmp_path / "no.json")})


def test_modules_from_settings(archive):
    module = data_module(DataConfig(data_module="archive", params={"archive": str(archive)}))
    assert len(module.selection("predict")) == 5
    flat = DataConfig.model_validate(
        {"cu3s_file_path": "a.cu3s", "train_ids": [1], "batch_size": 3}
    )
    assert flat.params == {"cu3s_file_path": "a.cu3s", "train_ids": [1]}
    single = data_module(flat)
    assert isinstance(single, SingleCu3sDataModule)
    assert (single.train_ids, single.batch_size) == ((1,), 3)
    folder = data_module(DataConfig(params={"data_dir": "x", "recursive": True}))
    assert isinstance(folder, MultiCu3sDataModule)
    with pytest.raises(ConfigError, match="Did you mean 'cu3s_file_path'"):
        data_module(DataConfig(params={"cu3s_file_pat": "x"}))
    with pytest.raises(ConfigError, match="no data module 'npz'"):
        data_module(DataConfig(data_module="npz"))
    with pytest.warns(UserWarning, match="read_threads: without effect"):
        data_module(DataConfig(params={"cu3s_file_path": "x", "read_threads": 4}))
