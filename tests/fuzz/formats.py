"""What is fuzzed: good files of every format, and how each is read."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
from archive_helpers import cube_of, make_archive

from hsi_batch.archive import BlockKey, open_archive
from hsi_batch.archive.catalog import catalog_problem, is_published, load_catalog
from hsi_batch.archive.partials import load_partial, save_partial
from hsi_batch.archive.records import BlockRecord, Records
from hsi_batch.archive.store import ARCHIVE, archive_stamp, open_root, state_folder
from hsi_batch.cluster import read_cluster
from hsi_batch.files import digest_of, sealed
from hsi_batch.nodes import FixedPCAProjection
from hsi_batch.nodes.spectral_library import SpectralLibrary
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.weights import load_weights
from hsi_batch.readers.annotations import open_annotation
from hsi_batch.readers.registry import open_source
from hsi_batch.stages.evaluation import Evaluation, load_evaluation, save_evaluation
from hsi_batch.stages.kept_file import read_kept, write_kept
from hsi_batch.stages.verify_files import metadata_damages
from hsi_batch.statistics import Forest, IntegerMoments
from hsi_batch.training.trainrun import read_trainrun
from hsi_batch.workflow import read_workflow, shipped

TESTS = Path(__file__).parent.parent


@dataclass(frozen=True)
class Format:
    """Good contents, and a function that reads what became of them.

    Damage seldom gets past a checksum. So there may be contents of inner parts, too, and a function
    that makes a file of them whose checksums hold.
    """

    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    inner: tuple[bytes, ...] = ()
    wrap: Callable[[bytes], bytes] = bytes


def rezipped(whole: bytes, member: str) -> tuple[bytes, Callable[[bytes], bytes]]:
    """One entry of a zip file, and a function that puts another in its place."""
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    name = next(name for name in entries if name.endswith(member))

    def wrap(raw: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for other, content in entries.items():
                file.writestr(other, raw if other == name else content)
        return buffer.getvalue()

    return entries[name], wrap


def resealed(raw: bytes) -> bytes:
    """JSON with the checksum of itself, if it is JSON."""
    try:
        return sealed(json.loads(raw)).encode()
    except (ValueError, TypeError, RecursionError):
        return raw


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
    return Format(tuple(seeds), _recording(folder, "s.npz"), *_inside(seeds[0], "cube.npy"))


def _inside(whole: bytes, member: str) -> tuple[tuple[bytes, ...], Callable[[bytes], bytes]]:
    inner, wrap = rezipped(whole, member)
    return (inner,), wrap


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

    def wrap(raw: bytes) -> bytes:
        crc = google_crc32c.value(raw)
        return b'%b,"crc":%d}\n' % (raw, crc)

    line = record.to_json().rpartition(',"crc"')[0].encode()
    return Format((f"{record.to_json()}\n".encode() * 3,), read, (line,), wrap)


def _store(folder: Path, name: str) -> Format:
    path = folder / "a.zarr"
    if not path.exists():
        make_archive(path, {"s": cube_of(1)}, lines=16, wavelength=np.array([1.0, 2, 3]))
    file = path / name
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
            list(metadata_damages(str(path), {"s"}, {"s"}))
            return names
        finally:
            file.write_bytes(whole)

    return Format((whole,), read)


def _catalog(folder: Path) -> Format:
    path = folder / "a.zarr"
    make_archive(path, {"s": cube_of(1)}, lines=16)
    root, state = open_root(path, ARCHIVE), state_folder(path)
    stamp = archive_stamp(path)

    def read(raw: bytes) -> object:
        (state / "catalog.parquet").write_bytes(raw)
        if raw[-1:] < b"\x80":
            # As if somebody had vouched for it.
            vouched = {"stamp": stamp, "catalog": digest_of(raw)}
            (state / "catalog.json").write_text(sealed(vouched))
        return len(load_catalog(path, lambda: root)), catalog_problem(path)

    return Format(((state / "catalog.parquet").read_bytes(),), read)


def _stamp(folder: Path) -> Format:
    path = folder / "a.zarr"
    make_archive(path, {"s": cube_of(1)}, lines=16)
    file = state_folder(path) / "catalog.json"
    whole = file.read_bytes()

    def read(raw: bytes) -> object:
        file.write_bytes(raw)
        return is_published(path), catalog_problem(path)

    return Format((whole,), read, (whole,), resealed)


def _weights(folder: Path) -> Format:
    pipeline = Pipeline.from_yaml(shipped() / "pipelines" / "rx_statistical.yaml")
    _, weights = pipeline.to_bytes()

    def read(raw: bytes) -> object:
        load_weights(pipeline, raw)
        return pipeline

    return Format((weights,), read, *_inside(weights, "data.pkl"))


def _picture(folder: Path) -> Format:
    import PIL.Image

    seeds = []
    for kind, mode in (("PNG", "L"), ("TIFF", "L"), ("PNG", "P"), ("BMP", "L")):
        buffer = io.BytesIO()
        picture = PIL.Image.new(mode, (5, 6))
        picture.putpixel((1, 2), 1)
        picture.save(buffer, kind)
        seeds.append(buffer.getvalue())

    def read(raw: bytes) -> object:
        name = "tif" if raw[:2] in (b"II", b"MM") else "png"
        (folder / f"s.{name}").write_bytes(raw)
        with open_annotation(str(folder / f"s.{name}"), shape=(6, 5), frames=1) as labels:
            return labels.labels(0, 0, 6)

    return Format(tuple(seeds), read)


def _mask(folder: Path) -> Format:
    seeds = []
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, mask=np.eye(6, 5, dtype=np.uint8), class_mask=np.zeros((6, 5), np.int16))
        seeds.append(buffer.getvalue())

    def read(raw: bytes) -> object:
        (folder / "s.npz").write_bytes(raw)
        with open_annotation(str(folder / "s.npz"), shape=(6, 5), frames=1) as labels:
            return labels.labels(0, 0, 6)

    return Format(tuple(seeds), read, *_inside(seeds[0], "mask.npy"))


LIBRARY = (
    b"wavelength: [400, 500, 600]\nspectra:\n  a: [1.0, 2, 3e-1]\n  b: [0, .5, 1]\n",
    b"wavelength,a,b\n400,1.0,0\n500,2,.5\n600,3e-1,1\n",
)


def _library(folder: Path, suffix: str) -> Format:
    buffer = io.BytesIO()
    np.savez(buffer, spectra=np.eye(2, 3), names=["a", "b"], wavelength=[1.0, 2.0, 3.0])
    seed = {"yaml": LIBRARY[0], "csv": LIBRARY[1], "npz": buffer.getvalue()}[suffix]

    def read(raw: bytes) -> object:
        (folder / f"l.{suffix}").write_bytes(raw)
        return SpectralLibrary.read(folder / f"l.{suffix}")

    inside = _inside(seed, "spectra.npy") if suffix == "npz" else ()
    return Format((seed,), read, *inside)


def _projection(folder: Path) -> Format:
    buffer = io.BytesIO()
    np.savez(buffer, mean=np.zeros(3), comps=np.eye(2, 3), lo=np.zeros(2), hi=np.ones(2))

    def read(raw: bytes) -> object:
        (folder / "p.npz").write_bytes(raw)
        return FixedPCAProjection(projection_path=str(folder / "p.npz"), name="p")

    return Format((buffer.getvalue(),), read, *_inside(buffer.getvalue(), "comps.npy"))


def _partial(folder: Path) -> Format:
    moments = IntegerMoments.empty(3, "uint16")
    moments.update(np.arange(12, dtype=np.uint16).reshape(4, 3))
    save_partial(folder / "p.npz", {"moments": Forest.of(((0, 2),), moments)})

    def read(raw: bytes) -> object:
        (folder / "p.npz").write_bytes(raw)
        return load_partial(folder / "p.npz")

    whole = (folder / "p.npz").read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        index = next(name for name in file.namelist() if name.startswith("index"))
    return Format((whole,), read, *_inside(whole, index))


def _kept(folder: Path) -> Format:
    write_kept(folder / "k", "digest", {"a": np.arange(9.0)})

    def read(raw: bytes) -> object:
        (folder / "k").write_bytes(raw)
        return read_kept(folder / "k", "digest")

    whole = (folder / "k").read_bytes()
    moments = IntegerMoments.empty(3, "uint16")

    def wrap(raw: bytes) -> bytes:
        body = b"digest\n" + zlib.compress(raw)
        return b"hsi-batch-kept-1\n" + hashlib.sha256(body).digest() + body

    inner = (pickle.dumps({"a": np.arange(9.0)}, 5), pickle.dumps(moments, 5))
    return Format((whole,), read, inner, wrap)


def _metrics(folder: Path) -> Format:
    state = state_folder(folder / "s.zarr")

    def read(raw: bytes) -> object:
        (state / "metrics.json").write_bytes(raw)
        return load_evaluation(folder / "s.zarr")

    save_evaluation(Evaluation([{"session": "s", "frame": 0}]), str(folder / "s.zarr"))
    whole = (state / "metrics.json").read_bytes()
    return Format((whole,), read, (whole,), resealed)


def _pipeline(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Pipeline.from_yaml(path)


def _workflow_seed(folder: Path) -> Path:
    path = folder / "workflow.yaml"
    path.write_text(
        "sources: [in]\narchive: a.zarr\npipeline: p.yaml\n"
        "fit: {out: f.yaml, pixels: valid, frames: 'glob:a*'}\n"
        "score: {out: s.zarr, outputs: [scores]}\nreport: r.html\ncluster: {workers: 2}\n"
    )
    (folder / "p.yaml").write_text(
        "nodes: {data: CU3SDataNode, rx: RXGlobal}\nconnections: [[data.cube, rx.data]]\n"
    )
    return path


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
    "workflow yaml": lambda folder: _yaml(folder, [_workflow_seed(folder)], read_workflow),
    "cluster yaml": lambda folder: _yaml(folder, [_cluster_seed(folder)], read_cluster),
    "trainrun yaml": lambda folder: _yaml(folder, [_trainrun_seed(folder)], read_trainrun),
    "records": _records,
    "label picture": _picture,
    "label npz": _mask,
    "spectra yaml": lambda folder: _library(folder, "yaml"),
    "spectra csv": lambda folder: _library(folder, "csv"),
    "spectra npz": lambda folder: _library(folder, "npz"),
    "projection npz": _projection,
    "catalog": _catalog,
    "catalog stamp": _stamp,
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
