"""Fits and scores have the same bits, however the work was cut and whoever did it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import zarr
from cluster_helpers import kill_a_worker
from comparing import assert_same, maps_of, state_of
from graphs import pca, rx_per_frame, rx_quantile, rx_statistical
from recordings import scene, write_npz

from hsi_batch.archive import open_archive
from hsi_batch.cluster import connect
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.score import score

GRAPHS = {
    "rx": (rx_statistical, ("rx.scores", "decider.decisions")),
    "pca": (pca, ("pca.projected",)),
    "quantile": (rx_quantile, ("rx.scores", "decider.decisions")),
    "frame": (rx_per_frame, ("rx.scores", "decider.decisions")),
}


def recordings(folder, dtype):
    for i in range(3):
        cube, mask = scene(i, lines=100, samples=90, bands=12, dtype=dtype)
        write_npz(folder / f"s{i}.npz", cube, mask=mask)
    # Lines wider than a leaf, and frames of another size, in the same session order.
    write_npz(folder / "w.npz", scene(7, lines=9, samples=5000, bands=12, dtype=dtype)[0])


def run(folder, archive, client, tag, graphs=tuple(GRAPHS), **options):
    """State and maps of graphs, fitted and scored on one archive."""
    found = {}
    for name in graphs:
        graph, outputs = GRAPHS[name]
        pipeline = graph()
        fit(pipeline, archive, client=client, **options)
        store = folder / f"{tag}-{name}.zarr"
        score(pipeline, archive, store, outputs=outputs, client=client, **options)
        found |= {f"{name} {k}": v for k, v in state_of(pipeline).items()}
        found |= {f"{name} {k}": v for k, v in maps_of(store).items()}
    return found


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_block_height_and_task_size(tmp_path, client, dtype):
    recordings(tmp_path / "in", dtype)
    reference = None
    # Every height, every size, and both at their extremes.
    for lines, sizes in {16: (1, 10**9), 64: (100_000,), "frame": (1, 100_000)}.items():
        archive = tmp_path / f"{lines}.zarr"
        convert(tmp_path / "in", archive, block_lines=lines, client=client)
        for task_bytes in sizes:
            found = run(tmp_path, archive, client, f"{lines}-{task_bytes}", task_bytes=task_bytes)
            reference = reference or found
            assert_same(reference, found)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_stored_statistics_and_passes(tmp_path, client, dtype):
    """Zero passes from what conversion stored, and passes over the pixels, give the same bits."""
    recordings(tmp_path / "in", dtype)
    archive = tmp_path / "a.zarr"
    convert(tmp_path / "in", archive, block_lines=16, client=client)
    stored = run(tmp_path, archive, client, "stored")
    root = zarr.open_group(archive, mode="r+")
    for _, group in root.groups():
        for name in ("moments", "extrema", "moments_normal", "extrema_normal", "sample"):
            if name in group:
                del group[name]
    passed = run(tmp_path, archive, client, "passed")
    assert_same(stored, passed)


def test_number_of_workers(tmp_path, client):
    two = {}
    for dtype in ("uint16", "float32"):
        recordings(tmp_path / dtype, dtype)
        archive = tmp_path / f"{dtype}.zarr"
        convert(tmp_path / dtype, archive, block_lines=16, client=client)
        two[dtype] = run(tmp_path, archive, client, f"two-{dtype}")
    for workers in (1, 4):
        with connect(workers=workers) as other:
            for dtype, expected in two.items():
                again = tmp_path / f"{dtype}-{workers}.zarr"
                convert(tmp_path / dtype, again, block_lines=16, client=other)
                assert_same(expected, run(tmp_path, again, other, f"{workers}-{dtype}"))


@pytest.mark.parametrize(
    ("dtype", "name", "stages"),
    # The two kinds of scoring task: by block, and by frame. Every kill costs two starts.
    [
        ("uint16", "rx", {"fit", "score"}),
        ("float32", "rx", {"fit"}),
        ("float32", "frame", {"score"}),
    ],
)
def test_after_a_worker_was_killed(tmp_path, client, dtype, name, stages):
    recordings(tmp_path / "in", dtype)
    archive = tmp_path / "a.zarr"
    convert(tmp_path / "in", archive, block_lines=16, client=client)
    root = zarr.open_group(archive, mode="r+")
    for _, group in root.groups():
        for statistic in ("moments", "extrema"):
            del group[statistic]
    calm = run(tmp_path, archive, client, "calm", (name,))
    killed = set()

    def kill(progress):
        stage = progress.stage.split(",")[0]
        if stage in stages - killed and progress.done >= 3:
            killed.add(stage)
            kill_a_worker(other)

    with connect(workers=2) as other:
        options = {"task_bytes": 1, "observer": kill}
        assert_same(calm, run(tmp_path, archive, other, "killed", (name,), **options))
    assert killed == stages


def test_blas_core_type_changes_no_bit_of_an_integer_fit(tmp_path, client):
    """The statistics are exact and factorised by a library that does not read this variable."""
    recordings(tmp_path / "in", "uint16")
    archive = tmp_path / "a.zarr"
    convert(tmp_path / "in", archive, client=client)
    root = zarr.open_group(archive, mode="r+")
    for _, group in root.groups():
        for name in ("moments", "extrema"):
            del group[name]
    script = tmp_path / "fit.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import hashlib, sys
            sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
            import scipy.linalg
            from graphs import pca, rx_raw, selector
            from distributed import Client
            from threadpoolctl import threadpool_info
            from hsi_batch.stages.convert import convert
            from hsi_batch.stages.fit import fit

            converted = sys.argv[1] + ".zarr"
            local = dict(n_workers=1, threads_per_worker=1, dashboard_address=None)
            with Client(processes=False, **local) as client:
                convert({str(tmp_path / "in")!r}, converted, client=client)
                for graph in (rx_raw, selector, pca):
                    for source in (converted, {str(archive)!r}):
                        pipeline = graph()
                        fit(pipeline, source, client=client)
                        for name, node in pipeline.nodes.items():
                            arrays = node.state | {{
                                k: v.numpy() for k, v in node.state_dict().items()
                            }}
                            for key, value in sorted(arrays.items()):
                                print(name, key, hashlib.sha256(value.tobytes()).hexdigest())
            cores = {{i["architecture"] for i in threadpool_info() if "architecture" in i}}
            print("core", *sorted(cores), file=sys.stderr)
            """
        )
    )
    outputs, cores = [], []
    for core in ("Haswell", None, "Sandybridge"):
        environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
        if core:
            environment["OPENBLAS_CORETYPE"] = core
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path / f"core-{core}")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
        cores.append(done.stderr.strip().splitlines()[-1])
    assert len(set(cores)) > 1, cores
    assert outputs[0].count("\n") > 20
    assert outputs[0] == outputs[1] == outputs[2]


def test_an_output_does_not_depend_on_what_else_is_asked(tmp_path, client):
    recordings(tmp_path / "in", "uint16")
    archive = open_archive_of(tmp_path, client)
    pipeline = rx_statistical()
    fit(pipeline, archive, client=client)
    score(pipeline, archive, tmp_path / "one.zarr", outputs="rx.scores", client=client)
    score(
        pipeline,
        archive,
        tmp_path / "many.zarr",
        outputs=("norm.normalized", "logit.logits", "rx.scores", "data.cube"),
        client=client,
    )
    one, many = maps_of(tmp_path / "one.zarr"), maps_of(tmp_path / "many.zarr")
    assert all(many[key] == value for key, value in one.items())


def open_archive_of(folder, client):
    convert(folder / "in", folder / "a.zarr", client=client)
    return open_archive(folder / "a.zarr")
