"""One byte flipped anywhere: a check finds it, or opening refuses it."""

import random
import shutil

import pytest

from hsi_batch.archive import open_archive
from hsi_batch.archive.store import state_folder
from hsi_batch.errors import HsiBatchError
from hsi_batch.pipeline import Pipeline
from hsi_batch.stages.evaluation import load_evaluation
from hsi_batch.stages.verify import verify, verify_pipeline

FEW, MANY = 15, 500


def files_of(store):
    """All files of a store and of its run state."""
    both = (store, state_folder(store))
    return sorted(f for folder in both for f in folder.rglob("*") if f.is_file())


def flip(file, rng):
    """Change one byte; returns where, and what was there."""
    raw = bytearray(file.read_bytes())
    at = rng.randrange(len(raw))
    raw[at] ^= rng.randrange(1, 256)
    file.write_bytes(raw)
    return at


def found(check):
    try:
        return not check().sound
    except HsiBatchError:
        return True


def missed(files, check, count, seed):
    """Flips that are not found; every kind of file has its turn before any has two."""
    rng = random.Random(seed)
    assert check().sound
    order = rng.sample(files, len(files))
    silent = []
    for number in range(count):
        file = order[number % len(order)]
        whole = file.read_bytes()
        if not whole:
            continue
        at = flip(file, rng)
        if not found(check):
            silent.append((str(file), at, whole[at], file.read_bytes()[at]))
        file.write_bytes(whole)
    assert check().sound
    return silent


def checked(made, client, tmp_path, kind, count, seed):
    folder = tmp_path / "copy"
    shutil.copytree(made.root, folder, ignore=shutil.ignore_patterns("in"))
    if kind == "pipeline":
        fitted = folder / made.fitted.name
        files = [fitted, fitted.with_suffix(".pt")]
        return missed(files, lambda: verify_pipeline(fitted), count, seed)
    store = folder / getattr(made, kind).name
    check = lambda: verify(store, deep=True, client=client)  # noqa: E731
    return missed(files_of(store), check, count, seed)


@pytest.mark.parametrize("kind", ["archive", "scores", "pipeline"])
def test_a_flip_is_never_silent(made, client, tmp_path, kind):
    assert not checked(made, client, tmp_path, kind, FEW, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["archive", "scores", "pipeline"])
def test_500_flips_are_never_silent(made, client, tmp_path, kind):
    assert not checked(made, client, tmp_path, kind, MANY, seed=2)


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
    assert hsi("verify", mine.fitted).code == 0


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
            lambda a: shutil.copytree(a / "a/cube/c/0", a / "a/cube/c/7"),
            "a: the file cube/c/7/0/0/0 does not belong there",
        ),
        (lambda a: (a / "a/moments/c/0/0").unlink(), "moments has 0 chunks in files, and 1 were"),
        (lambda a: (a / "a/link").symlink_to("/etc"), "a: link is a link"),
        (lambda a: shutil.rmtree(a / "b"), "b: is gone"),
        (lambda a: (a / "a/cube/c/0/0/0" / "1.7.partial").write_text("x"), "was left by a worker"),
    ],
)
def test_what_is_missing_or_foreign(hsi, mine, change, says):
    change(mine.archive)
    done = hsi("verify", mine.archive, "--deep")
    assert done.code == 3
    assert says in done.out, done.out
