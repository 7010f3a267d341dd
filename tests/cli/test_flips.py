"""One byte flipped anywhere: a check finds it, or opening refuses it."""

import random
import shutil

import pytest
from flips import KINDS, flipped, silent

from hsi_batch.archive import open_archive
from hsi_batch.archive.store import state_folder
from hsi_batch.errors import ConfigError, HsiBatchError, HsiBatchWarning
from hsi_batch.pipeline import Pipeline
from hsi_batch.pipeline.weights import dump_weights
from hsi_batch.stages.evaluation import load_evaluation

FEW = 40


@pytest.mark.parametrize("kind", KINDS)
def test_a_flip_is_never_silent(made, tmp_path, kind):
    # ``make flips`` does 500 of each, elsewhere.
    shutil.copytree(made.root, tmp_path / "copy", ignore=shutil.ignore_patterns("in"))
    place = made.fitted if kind == "pipeline" else getattr(made, kind)
    assert silent(kind, tmp_path / "copy" / place.name, FEW, seed=1)[0] == []


def flip(file, rng):
    """Change one byte."""
    flipped(file, rng)


def test_no_other_first_byte_makes_a_fitted_yaml_a_foreign_one(mine):
    whole = mine.fitted.read_bytes()
    assert whole.startswith(b"# Written by hsi_batch")
    for byte in set(range(256)) - {whole[0]}:
        mine.fitted.write_bytes(bytes([byte]) + whole[1:])
        with pytest.raises(HsiBatchError):
            Pipeline.from_yaml(mine.fitted)


def test_a_sealed_yaml_takes_no_weights_but_its_own(mine):
    pipeline = Pipeline.from_yaml(mine.fitted)
    # As cuvis-ai and earlier versions write them: they state no YAML.
    mine.fitted.with_suffix(".pt").write_bytes(dump_weights(pipeline, {}))
    with pytest.raises(ConfigError, match="not the weights that"):
        Pipeline.from_yaml(mine.fitted)
    mine.fitted.with_suffix(".pt").unlink()
    with pytest.warns(HsiBatchWarning, match="not beside it"):
        assert not Pipeline.from_yaml(mine.fitted).fitted


def test_a_digit_in_the_yaml_of_a_fitted_pipeline(hsi, mine):
    text = mine.fitted.read_text()
    assert "eps: " in text
    mine.fitted.write_text(text.replace("eps: ", "eps: 1", 1))
    done = hsi("score", mine.fitted, "--archive", mine.archive, "--out", mine.root / "t.zarr")
    assert done.code == 2
    assert "fitted.yaml" in done.err
    assert "was changed, or is damaged" in " ".join(done.err.split())
    done = hsi("verify", mine.fitted)
    assert done.code == 3
    # A change that was meant is accepted without the line that vouches.
    mine.fitted.write_text(mine.fitted.read_text().split("\n", 1)[1])
    done = hsi("verify", mine.fitted)
    assert done.code == 0
    assert "not sealed" in done.out


def test_halves_of_two_fits_are_not_one(mine, tmp_path):
    pipeline = Pipeline.from_yaml(mine.fitted)
    pipeline.nodes["rx"].mu += 1
    pipeline.save(tmp_path / "fitted.yaml")
    Pipeline.from_yaml(tmp_path / "fitted.yaml")
    shutil.copy(mine.fitted, tmp_path / "fitted.yaml")
    with pytest.raises(HsiBatchError, match=r"was changed|not the weights"):
        Pipeline.from_yaml(tmp_path / "fitted.yaml")
    # Whoever names other weights means them.
    Pipeline.load_from_file(tmp_path / "fitted.yaml", mine.fitted.with_suffix(".pt"))


def test_a_flipped_catalog_or_summary_is_not_used(mine):
    catalog = state_folder(mine.archive) / "catalog.parquet"
    expected = open_archive(mine.archive).catalog
    raw = catalog.read_bytes()
    for at in range(4, len(raw), 997):
        catalog.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        assert open_archive(mine.archive).catalog.equals(expected)
    for name in ("metrics.json", "summary.parquet", "histograms.npz"):
        file = state_folder(mine.scores) / name
        whole = file.read_bytes()
        flip(file, random.Random(3))
        assert load_evaluation(mine.scores) is None
        file.write_bytes(whole)
    assert load_evaluation(mine.scores) is not None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: (a / "a" / "notes.txt").write_text("x"), "a: the file notes.txt does not"),
        (lambda a: (a / "notes.txt").write_text("x"), "store: notes.txt does not belong"),
        (
            lambda a: shutil.copy(a / "a/cube/c.0.0.0.0", a / "a/cube/c.7.0.0.0"),
            "a: the file cube/c.7.0.0.0 does not belong there",
        ),
        (lambda a: (a / "a/moments/c.0.0").unlink(), "moments has 0 chunks in files, and 1 were"),
        (lambda a: (a / "a/link").symlink_to("/etc"), "a: link is a link"),
        (lambda a: shutil.rmtree(a / "b"), "b: is gone"),
        (lambda a: (a / "a/cube/c.0.0.0.0.7.partial").write_text("x"), "was left by a worker"),
    ],
)
def test_what_is_missing_or_foreign(hsi, mine, change, says):
    change(mine.archive)
    done = hsi("verify", mine.archive, "--deep")
    assert done.code == 3
    assert says in done.out, done.out
