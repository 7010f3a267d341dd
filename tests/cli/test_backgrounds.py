"""Backgrounds on the command line and in workflows."""

import pytest

from hsi_batch.errors import ConfigError
from hsi_batch.pipeline import Pipeline
from hsi_batch.workflow import read_workflow

WORKFLOW = """\
archive: {archive}
pipeline: rx.yaml
fit:
  out: fitted.yaml
  background: session
  fallback: archive
score: {{out: s.zarr}}
report: r.html
"""


def test_fit_score_and_drift(hsi, mine):
    out = mine.root / "grouped.yaml"
    arguments = ("fit", mine.pipeline, "--archive", mine.archive, "--out", out)
    planned = hsi(*arguments, "--background", "session", "--dry-run")
    assert "2 frames of 2 sessions; 2 backgrounds, one per session; 1 pass" in planned.out
    planned = hsi(*arguments, "--background", "session", "--dry-run", "--json")
    assert (planned.json["background"], planned.json["backgrounds"]) == ("session", 2)
    done = hsi(*arguments, "--background", "session")
    assert done.code == 0
    assert "2 backgrounds, one per session" in done.out
    again = hsi(*arguments, "--background", "session", "--json").json
    assert again["up_to_date"]
    assert (again["background"], again["groups"]) == ("session", 2)
    # Another background is another fit.
    other = hsi(*arguments, "--background", "session", "--fallback", "archive", "--json").json
    assert not other["up_to_date"]
    assert "one background per session" in out.read_text()
    assert set(Pipeline.from_yaml(out).groups.states) == {"a", "b"}
    done = hsi("score", out, "--archive", mine.archive, "--out", mine.scores, "--json")
    assert (done.code, done.json["blocks"], done.json["stale"]) == (0, 6, [])
    told = hsi("drift", out, "--archive", mine.archive)
    assert "2 backgrounds, one per session" in told.out
    assert "a: mean moved 0," in told.out
    told = hsi("restore-pipeline", "--pipeline-path", out)
    assert "2 backgrounds, one per session, fallback archive" in told.out
    # A background of each session alone refuses the other one.
    hsi(*arguments, "--frames", "a", "--background", "session")
    done = hsi("score", out, "--archive", mine.archive, "--out", mine.root / "new.zarr")
    assert done.code == 2
    assert "session b" in done.err
    assert "--fallback archive" in done.err
    assert not (mine.root / "new.zarr").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--background", "sensors"), "Did you mean 'sensor'?"),
        (("--background", "sensor"), "a and b of 2 sessions state no 'sensor'"),
        (("--fallback", "archive"), "there is only one"),
        (("--background", "session", "--dialect", "cuvis-ai"), "cuvis-ai knows one background"),
    ],
)
def test_what_is_refused(hsi, mine, options, message):
    out = mine.root / "grouped.yaml"
    done = hsi("fit", mine.pipeline, "--archive", mine.archive, "--out", out, *options)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert not out.exists()


def test_workflows(hsi, mine):
    path = mine.root / "w.yaml"
    path.write_text(WORKFLOW.format(archive=mine.archive.name))
    assert hsi("check", path).code == 0
    done = hsi("run", path)
    assert done.code == 0
    assert Pipeline.from_yaml(mine.root / "fitted.yaml").groups.fallback == "archive"
    assert "2, one per session" in (mine.root / "r.html").read_text()
    # One background for all is another pipeline.
    settings = ("--set", "fit.background=archive", "--set", "fit.fallback=null")
    again = hsi("run", path, *settings, "--json").json
    assert (again["fit"]["groups"], again["score"]["blocks"]) == (0, 6)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("session", "sesion", 5, "Did you mean 'session'?"),
        (
            "background: session",
            'background: "attr:"',
            5,
            "not one of archive, session, sensor, attr:NAME",
        ),
        ("session", "archive", 6, "there is only one"),
        ("background: session", "background: [session]", 5, "a text was expected, not a list"),
        ("background", "backgrund", 5, "Did you mean 'background'?"),
    ],
)
def test_mistakes_have_lines(mine, old, new, line, message):
    path = mine.root / "w.yaml"
    path.write_text(WORKFLOW.format(archive=mine.archive.name).replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_workflow(path)
    (problem,) = [p for p in caught.value.problems if p.line == line]
    assert message in str(problem)
