"""What is fuzzed: good files of every format, and how each is read."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from archive_helpers import cube_of, make_archive

from hsi_batch.archive import BlockKey, open_archive
from hsi_batch.archive.partials import load_partial, save_partial
from hsi_batch.archive.records import BlockRecord, Records
from hsi_batch.archive.store import state_folder
from hsi_batch.cluster import read_cluster
from hsi_batch.files import sealed
from hsi_batch.pipeline import Pipeline
from hsi_batch.readers.annotations import open_annotation
from hsi_batch.readers.registry import open_source
from hsi_batch.stages.evaluation import load_evaluation
from hsi_batch.stages.kept_file import read_kept, write_kept
from hsi_batch.statistics import Forest, IntegerMoments
from hsi_batch.training.trainrun import read_trainrun
from hsi_batch.workflow import read_workflow, shipped

TESTS = Path(__file__).parent.parent


@dataclass(frozen=True)
class Format:
    """Good contents, and a function that reads what became of them."""

    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]


def _recording(folder: Path, name: str, also: dict[str, bytes] | None = None):
    def read(raw: bytes) -> object:
        for other, content in {name: raw, **(also or {})}.items():
            (folder / other).write_bytes(content)
        with open_source(str(folder / name)) as source:
            lines = min(source.info.shape[0], 4)
            return source.frame(0).read(0, lines)

    return read


def _envi(folder: Path) -> Format:
    header = (
        b"ENVI\ndescription = {a test}\nsamples = 3\nlines = 4\nbands = 2\nheader offset = 0\n"
        b"data type = 12\ninterleave = bil\nbyte order = 0\nwavelength units = Nanometers\n"
        b"wavelength = {450.0, 600.5}\nfwhm = {5, 5}\nbbl = {1, 0}\ndata ignore value = 0\n"
        b"reflectance scale factor = 10000\nacquisition time = 2024-01-01T00:00:00Z\n"
    )
    return Format((header,), _recording(folder, "s.hdr", {"s.raw": bytes(48)}))


def _npz(folder: Path) -> Format:
    seeds = []
    cube = np.arange(24, dtype=np.uint16).reshape(4, 3, 2)
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, cube=cube, wavelengths=np.array([450.0, 600.0]))
        seeds.append(buffer.getvalue())
    return Format(tuple(seeds), _recording(folder, "s.npz"))


def _coco(folder: Path) -> Format:
    content = {
        "images": [{"id": 0, "height": 6, "width": 5, "file_name": "s_0"}],
        "categories": [{"id": 0, "name": "background"}, {"id": 1, "name": "odd"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "iscrowd": 0, "bbox": [1, 1, 2, 2],
             "area": 4, "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]},
            {"id": 2, "image_id": 0, "category_id": 1, "iscrowd": 1,
             "segmentation": {"size": [6, 5], "counts": [3, 5, 22]}},
            {"id": 3, "image_id": 0, "category_id": 0, "iscrowd": 1,
             "segmentation": {"size": [6, 5], "counts": "n0"}},
        ],
    }  # fmt: skip

    def read(raw: bytes) -> object:
        (folder / "s.json").write_bytes(raw)
        with open_annotation(str(folder / "s.json"), shape=(6, 5), frames=1) as labels:
            return labels.labels(0, 0, 6)

    return Format((json.dumps(content).encode(),), read)


def _yaml(folder: Path, seeds: list[Path], read: Callable[[Path], object]) -> Format:
    # Files that they name are there.
    shutil.copytree(shipped(), folder, dirs_exist_ok=True)

    def written(raw: bytes) -> object:
        (folder / "f.yaml").write_bytes(raw)
        return read(folder / "f.yaml")

    return Format(tuple(seed.read_bytes() for seed in seeds), written)


def _records(folder: Path) -> Format:
    record = BlockRecord(BlockKey("s", 0, 0, 16), "done", "d" * 16, "00aa", 7, info={"n": [1, 2]})

    def read(raw: bytes) -> object:
        (folder / "packed.jsonl").write_bytes(raw)
        return Records(folder).load(), Records(folder).damaged()

    return Format((f"{record.to_json()}\n".encode() * 3,), read)


def _store(folder: Path, name: str) -> Format:
    path = folder / "a.zarr"
    if not path.exists():
        make_archive(path, {"s": cube_of(1)}, lines=16, wavelength=np.array([1.0, 2, 3]))
    file = path / name if (path / name).exists() else state_folder(path) / name
    whole = file.read_bytes()

    def read(raw: bytes) -> object:
        file.write_bytes(raw)
        try:
            archive = open_archive(path)
            names = list(archive)
            for found in names:
                session = archive.session(found)
                _ = session.wavelength, session.good_band, session.failed_frames
                _ = session.valid(0, 0, 16)
                if session.geometry.shape == (40, 6, 3):
                    session.read(0, 0, 16)
            return names
        finally:
            file.write_bytes(whole)

    return Format((whole,), read)


def _weights(folder: Path) -> Format:
    pipeline = Pipeline.from_yaml(shipped() / "pipelines" / "rx_statistical.yaml")
    path = pipeline.save(folder / "p.yaml")

    def read(raw: bytes) -> object:
        path.with_suffix(".pt").write_bytes(raw)
        return Pipeline.from_yaml(path)

    return Format((path.with_suffix(".pt").read_bytes(),), read)


def _partial(folder: Path) -> Format:
    moments = IntegerMoments.empty(3, "uint16")
    moments.update(np.arange(12, dtype=np.uint16).reshape(4, 3))
    save_partial(folder / "p.npz", {"moments": Forest.of(((0, 2),), moments)})

    def read(raw: bytes) -> object:
        (folder / "p.npz").write_bytes(raw)
        return load_partial(folder / "p.npz")

    return Format(((folder / "p.npz").read_bytes(),), read)


def _kept(folder: Path) -> Format:
    write_kept(folder / "k", "digest", {"a": np.arange(9.0)})

    def read(raw: bytes) -> object:
        (folder / "k").write_bytes(raw)
        return read_kept(folder / "k", "digest")

    return Format(((folder / "k").read_bytes(),), read)


def _metrics(folder: Path) -> Format:
    state = state_folder(folder / "s.zarr")
    state.mkdir()

    def read(raw: bytes) -> object:
        (state / "metrics.json").write_bytes(raw)
        return load_evaluation(folder / "s.zarr")

    return Format((sealed({"metrics": {"auc": 0.5}, "files": {}}).encode(),), read)


def _pipeline(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Pipeline.from_yaml(path)


def _cluster_seed(folder: Path) -> Path:
    path = folder / "cluster.yaml"
    path.write_text("type: local\nworkers: 2\nmemory: 8 GiB\nscratch: /tmp\ndashboard: true\n")
    return path


def _trainrun_seed(folder: Path) -> Path:
    path = folder / "trainrun.yaml"
    path.write_text(
        "name: a\npipeline: {nodes: [{name: d, class_name: CU3SDataNode}]}\n"
        "data: {cu3s_file_path: a.cu3s, train_ids: [0, 1], batch_size: 2}\n"
        "training: {trainer: {max_epochs: 3}, optimizer: {name: adam, lr: 1e-3}}\n"
    )
    return path


FORMATS: dict[str, Callable[[Path], Format]] = {
    "envi": _envi,
    "npz": _npz,
    "coco": _coco,
    "pipeline yaml": lambda folder: _yaml(
        folder,
        [*sorted((shipped() / "pipelines").glob("rx_*.yaml")), TESTS / "seeds" / "short_form.yaml"],
        _pipeline,
    ),
    "workflow yaml": lambda folder: _yaml(folder, sorted(shipped().glob("*.yaml")), read_workflow),
    "cluster yaml": lambda folder: _yaml(folder, [_cluster_seed(folder)], read_cluster),
    "trainrun yaml": lambda folder: _yaml(folder, [_trainrun_seed(folder)], read_trainrun),
    "records": _records,
    "catalog": lambda folder: _store(folder, "catalog.parquet"),
    "catalog stamp": lambda folder: _store(folder, "catalog.json"),
    "root metadata": lambda folder: _store(folder, "zarr.json"),
    "session metadata": lambda folder: _store(folder, "s/zarr.json"),
    "array metadata": lambda folder: _store(folder, "s/cube/zarr.json"),
    "weights": _weights,
    "partial statistics": _partial,
    "kept statistics": _kept,
    "metrics": _metrics,
}


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
