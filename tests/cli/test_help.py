"""Help and usage."""

import re

import pytest
from commands import command

COMMANDS = (
    *("demo", "run", "convert", "fit", "score", "report", "ls", "show", "verify", "repair"),
    *("rm", "status", "label", "mask", "export", "detect", "quicklook", "evaluate", "provenance"),
    "view",
    *("submit", "logs", "cancel", "init", "slice", "finalise"),
    *("nodes", "graph", "check", "schema"),
    *("drift", "train", "restore-pipeline", "restore-trainrun"),
    *("top", "doctor"),
)
#: Groups of commands.
GROUPS = {"cluster": ("script", "check")}
WORKING = ("run", "convert", "fit", "score", "detect")


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("name", [*COMMANDS, "ingest"])
def test_every_command_explains_itself_with_an_example(hsi, name):
    done = hsi(name, "--help")
    assert done.code == 0
    assert not done.err
    assert re.search(rf"Example: hsi-batch {'convert' if name == 'ingest' else name} \S", done.out)
    assert "--json" in done.out
    assert "--quiet" in done.out
    if name in WORKING:
        for option in ("--dry-run", "--cluster", "--workers", "--force", "--max-failed"):
            assert option in done.out, option


@pytest.mark.parametrize("group", GROUPS)
def test_commands_of_a_group_explain_themselves_too(hsi, group):
    for name in GROUPS[group]:
        done = hsi(group, name, "--help")
        assert re.search(rf"Example: hsi-batch {group} {name} \S", done.out)
        assert "--json" in done.out
        assert "--quiet" in done.out


def test_all_commands_are_listed(hsi):
    done = hsi("--help")
    assert done.code == 0
    listed = re.findall(r"^│ (\w[\w-]*) {2,}", done.out, re.MULTILINE)
    assert sorted(listed) == sorted([*COMMANDS, *GROUPS])
    assert re.search(r"Exit codes: 0 .* 1 .* 2 .* 3\s.* 130 ", done.out.replace("\n", " "))


def test_the_installed_program():
    done = command("--version")
    assert done.code == 0
    assert re.fullmatch(r"hsi-batch \d+\.\d+\S*\n", done.out)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["convert"], "Missing argument 'SOURCE"),
        (["convert", "x"], "Missing option '--archive'"),
        (["convert", "x", "--archiv", "y"], "--archive"),
        (["score", "x", "--archive", "y"], "Missing option '--out'"),
        (["convert", "x", "--archive", "y", "--nodata", "many"], "--nodata"),
        (["convert", "x", "--archive", "y", "--workers", "0"], "--workers"),
        (["fit", "x", "--archive", "y", "--out", "z", "--max-failed", "-1"], "--max-failed"),
        (["convert", "x", "--archive", "y", "--block-lines", "many"], "'frame'"),
    ],
)
def test_wrong_usage(hsi, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    done = hsi(*arguments)
    assert done.code == 2
    assert not done.out
    assert says in done.err
    assert not list(tmp_path.iterdir())
