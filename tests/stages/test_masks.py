"""Masks: one pass to make, none to fit on; what is not understood is refused."""

import numpy as np
import pytest
import zarr
from commands import command
from PIL import Image
from readers.envi_files import write_envi

from hsi_batch.archive import open_archive
from hsi_batch.archive.packing import rows_per_chunk
from hsi_batch.errors import ConfigError
from hsi_batch.nodes import CU3SDataNode, RXGlobal
from hsi_batch.pipeline.pipeline import Pipeline
from hsi_batch.stages.convert import convert
from hsi_batch.stages.fit import fit
from hsi_batch.stages.mask import mask
from hsi_batch.stages.score import score
from hsi_batch.stages.verify import verify

LINES, SAMPLES, BANDS = 96, 64, 40
NM = np.linspace(500, 890, BANDS)


def pipeline():
    made = Pipeline("rx")
    data, rx = CU3SDataNode(name="data"), RXGlobal(name="rx", eps=0.0)
    made.connect((data.outputs.cube, rx.data))
    return made


def scene(seed, kind="u2"):
    rng = np.random.default_rng(seed)
    cube = rng.integers(100, 4000, (LINES, SAMPLES, BANDS)).astype(kind)
    cube[:, 20:44, 30:] += np.array(3000, kind)
    return cube


@pytest.fixture(scope="module", name="made")
def made_fixture(tmp_path_factory, client):
    """An integer session with labels and flags, and a float one; rows per block and per session."""
    folder = tmp_path_factory.mktemp("masks")
    fields = {
        "wavelength": "{" + ", ".join(f"{nm:g}" for nm in NM) + "}",
        "wavelength_units": "nm",
        "data_gain_values": "{" + ", ".join(["0.5"] * BANDS) + "}",
    }
    cubes = {"whole": scene(1), "float": scene(2, "f4")}
    cubes["whole"][3, 30] = 65535
    labels = np.zeros((LINES, SAMPLES), dtype=np.uint8)
    labels[50:60, 10:20] = 1
    Image.fromarray(labels).save(folder / "whole_mask.png")
    for name, cube in cubes.items():
        write_envi(folder, cube, name=name, **fields)
    convert(folder, folder / "a.zarr", client=client, saturation=65535, block_lines=64)
    return folder, cubes, labels


def reference(pixels):
    flat = np.asarray(pixels, dtype=np.float64) * 0.5
    return flat.mean(0), np.cov(flat.T)


TERMS = {
    "ratio": "mean(800,890)/b(600) > 1.2 and not b(500) < 100",
    "columns": "20:44",
    "box": "x=5:40,y=10:90",
    "polygon": "polygon (5,5) (60,8) (30,90)",
    "labelled": "label:anomaly",
}


def inside(name, cube, labels):
    y, x = np.mgrid[:LINES, :SAMPLES]
    if name == "ratio":
        half = cube * 0.5
        near = int(np.argmin(np.abs(NM - 600)))
        return (half[..., (NM >= 800) & (NM <= 890)].mean(-1) / half[..., near] > 1.2) & ~(
            half[..., 0] < 100
        )
    if name == "polygon":
        edges = [((5, 5), (60, 8)), ((60, 8), (30, 90)), ((30, 90), (5, 5))]
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0 for (ax, ay), (bx, by) in edges]
        return np.logical_and.reduce(sides)
    return {
        "columns": (x >= 20) & (x < 44),
        "box": (x >= 5) & (x < 40) & (y >= 10) & (y < 90),
        "labelled": labels == 1,
    }[name]


# The session of floats has no labels.
@pytest.mark.parametrize(
    ("name", "session"),
    [(n, s) for n in TERMS for s in ("whole", "float") if (n, s) != ("labelled", "float")],
)
def test_a_mask_takes_one_pass_and_fits_on_it_none(made, client, name, session):
    folder, cubes, labels = made
    store = folder / "a.zarr"
    before = zarr.open_group(store, mode="r")[session]["checksum"][:]
    done = mask(store, name, TERMS[name], frames=session, client=client)
    archive = open_archive(store)
    assert done.blocks == archive.session(session).geometry.blocks
    known = inside(name, cubes[session], labels)
    stored = archive[session][f"mask_{name}"][0].values.astype(bool)
    border = 0 if name != "polygon" else 40  # points on the outline
    assert np.count_nonzero(stored != known) <= border
    assert done.inside == np.count_nonzero(stored)
    counted = stored & (archive[session].quality[0].values == 0) if session == "whole" else stored
    result = fit(p := pipeline(), store, frames=session, pixels=f"mask:{name}", client=client)
    assert (result.passes, result.pixels) == (0, np.count_nonzero(counted))
    mean, covariance = reference(cubes[session][counted])
    np.testing.assert_allclose(p.nodes["rx"].state["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(p.nodes["rx"].cov, covariance, rtol=1e-5, atol=1e-3)
    # Rows of blocks are in few files.
    group = zarr.open_group(store, mode="r")[session]
    for kind in ("moments", "extrema"):
        rows = group[f"{kind}_mask_{name}"]
        if archive.session(session).geometry.row_frames is None:
            assert f"{kind}_mask_{name}_rows" not in group
            assert rows.chunks[0] == min(rows.shape[0], rows_per_chunk(rows))
    # A part of the frame is read: the same pixels count.
    part = f"{session}[0][y=0:64]"
    again = fit(q := pipeline(), store, frames=part, pixels=f"mask:{name}", client=client)
    assert (again.passes, again.pixels) == (1, np.count_nonzero(counted[:64]))
    mean, _ = reference(cubes[session][:64][counted[:64]])
    np.testing.assert_allclose(q.nodes["rx"].state["mean"], mean, rtol=1e-12)
    after = zarr.open_group(store, mode="r")[session]["checksum"][:]
    np.testing.assert_array_equal(before, after)


def test_what_depends_on_a_mask_goes_stale_and_nothing_else(made, tmp_path, client):
    from hsi_batch.stages.fit_file import fit_file

    store = made[0] / "a.zarr"
    source = tmp_path / "p.yaml"
    pipeline().save(source)
    source.with_suffix(".pt").unlink(missing_ok=True)
    mask(store, "stale", "0:30", frames="float", client=client)
    arguments = {"frames": "float", "client": client}
    for pixels in ("valid", "mask:stale"):
        fit_file(source, store, tmp_path / f"{pixels[:4]}.yaml", pixels=pixels, **arguments)
    score(tmp_path / "vali.yaml", store, tmp_path / "s.zarr", **arguments)
    mask(store, "stale", "0:40", frames="float", client=client)
    known = fit_file(source, store, tmp_path / "vali.yaml", pixels="valid", **arguments)
    stale = fit_file(source, store, tmp_path / "mask.yaml", pixels="mask:stale", **arguments)
    assert (known.up_to_date, stale.up_to_date) == (True, False)
    assert stale.pixels == 40 * LINES
    assert score(tmp_path / "vali.yaml", store, tmp_path / "s.zarr", **arguments).blocks == 0
    assert open_archive(store).session("float").masks["stale"]["version"] == 2
    assert verify(store, deep=True, client=client).sound


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("two words", "0:4", "--name product"),
        ("m", "b(800)", "compares no bands"),
        ("m", "__import__('os').system('x') > b(800)", "is not known"),
        ("m", "b(800).real > 1", "is not known"),
        ("m", "b(800) > ", "is not an expression"),
        ("m", "b(1700) > 1", "no band at 1700 nm; it has 500 to 890"),
        ("m", "band(99) > 1", "channels 0 to 39"),
        ("m", "9:4", "holds no pixel"),
        ("m", "900:", "begins at x = 900"),
        ("m", "polygon (1,2) (3,4)", "three points"),
        ("m", "label:anomoly", "Did you mean 'anomaly'"),
        ("m", "nowhere.png", "no such mask"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_remedy(made, client, name, source, said):
    store = made[0] / "a.zarr"
    with pytest.raises(ConfigError, match=said.replace("(", r"\(").replace(")", r"\)")):
        mask(store, name, source, frames="whole", client=client)
    assert "mask_m" not in zarr.open_group(store, mode="r")["whole"]


def test_wrong_uses_of_masks_and_labels_are_refused_with_the_remedy(made, client):
    store = made[0] / "a.zarr"
    with pytest.raises(ConfigError, match="hsi-batch mask STORE --name product"):
        fit(pipeline(), store, pixels="mask:product", client=client)
    with pytest.raises(ConfigError, match=r"what is not labelled is not normal.*--annotations"):
        fit(pipeline(), store, frames="float", pixels="labelled-normal", client=client)
    with pytest.raises(
        ConfigError, match="is not one of valid, labelled-normal, class:NAME, mask:NAME"
    ):
        fit(pipeline(), store, pixels="labeled-normal", client=client)
    with pytest.raises(ConfigError, match="has no labels"):
        mask(store, "m", "label:anomaly", frames="float", client=client)


def test_sessions_that_lack_a_mask_are_told_how_the_others_got_theirs(made, client):
    folder, _, _ = made
    mask(folder / "a.zarr", "partly", "20:44", frames="whole", client=client)
    with pytest.raises(ConfigError, match="float of 2 sessions have no mask 'partly'") as caught:
        fit(pipeline(), folder / "a.zarr", pixels="mask:partly", client=client)
    assert "Did you mean" not in caught.value.message
    assert caught.value.hint.endswith("--name partly --from '20:44' --frames float.")
    with pytest.raises(ConfigError, match=r"'partl'\. Did you mean 'partly'\?"):
        fit(pipeline(), folder / "a.zarr", pixels="mask:partl", client=client)


def test_the_command_line(made):
    store = made[0] / "a.zarr"
    done = command("mask", store, "--name", "belt", "--from", "0:10", "--workers", "1").checked()
    assert done.code == 0, done
    assert "15.62 %" in done.out
    assert "--pixels mask:belt" in done.out


def test_what_a_killed_command_left_half_written_is_removed(made, client):
    store = made[0] / "a.zarr"
    left = store / "float" / ".zarr.json.ab3_x9zz"
    left.write_text("{")
    mask(store, "last", "0:30", frames="float", client=client)
    assert not left.exists()
