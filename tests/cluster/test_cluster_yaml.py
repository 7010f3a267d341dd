"""A cluster YAML is read as people mean it; all mistakes come with file, line and advice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_strategies import DTYPES  # noqa: F401  (its hypothesis profile)

from hsi_batch.cluster import ExistingConfig, LocalConfig, connect, read_cluster
from hsi_batch.documents import read_yaml
from hsi_batch.errors import ConfigError


def read(text, **options):
    return read_cluster(read_yaml("c.yaml", text=text, **options))


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("", LocalConfig()),
        ("type: local", LocalConfig()),
        ("workers: 2", LocalConfig(workers=2)),
        ("memory: 4 GiB", LocalConfig(memory=4 * 2**30)),
        ("memory: 1500MB\ndashboard: true", LocalConfig(memory=1_500_000_000, dashboard=True)),
        ("memory: 1000000000", LocalConfig(memory=10**9)),
        ("scratch: /tmp", LocalConfig(scratch="/tmp")),
        (
            "type: existing\naddress: tcp://10.0.0.1:8786",
            ExistingConfig(type="existing", address="tcp://10.0.0.1:8786"),
        ),
        (
            "type: existing\nscheduler_file: s.json\ntimeout: 5",
            ExistingConfig(type="existing", scheduler_file="s.json", timeout=5.0),
        ),
    ],
)
def test_what_is_written_is_what_is_read(text, config):
    assert read(text) == config


@given(st.integers(1, 10**6), st.sampled_from(["kB", "MB", "GB", "KiB", "MiB", "GiB"]))
def test_sizes_are_read_with_their_units(number, unit):
    expected = {
        "kB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
    }[unit]
    assert read(f"memory: {number} {unit}").memory == number * expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("type: locl", r"c\.yaml:1: .*no cluster type 'locl'\. Did you mean 'local'\?"),
        ("# x\n\ntype: existng", r"c\.yaml:3: .*Did you mean 'existing'\?"),
        ("type: kubernets", "Types are local, existing"),
        ("type: local\nworker: 2", r"c\.yaml:2: unknown key 'worker'\. Did you mean 'workers'\?"),
        ("workers: 0", r"c\.yaml:1: workers: .*greater than or equal to 1 \(found 0\)"),
        ("workers: two", "workers: a whole number was expected, not 'two'"),
        ("\nmemory: lots", r"c\.yaml:2: memory: write a size such as 4 GiB \(found 'lots'\)"),
        ("memory: -4 GiB", r"c\.yaml:1: memory: .*4 GiB \(found '-4 GiB'\)"),
        ("memory: 0", r"c\.yaml:1: memory: "),
        ("memory: true", r"c\.yaml:1: memory: "),
        ("memory: [1]", r"c\.yaml:1: memory: "),
        ("type: existing", "give either `address` or `scheduler_file`"),
        ("type: existing\naddress: a\nscheduler_file: b", "give either"),
        ("type: existing\naddress: a\ntimeout: 0", r"c\.yaml:3: timeout: "),
        ("type: existing\naddress: a\nworkers: 2", r"c\.yaml:3: unknown key 'workers'"),
        ("- type: local", "the file holds a list; a mapping of keys was expected"),
        ("type: [", r"c\.yaml:\d: this is not YAML"),
        ("workers: 1\nworkers: 2", r"c\.yaml:2: key 'workers' stands twice"),
    ],
)
def test_a_mistake_is_named_with_its_place(text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        read(text)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith("c.yaml")


def test_all_mistakes_come_at_once():
    with pytest.raises(ConfigError) as caught:
        read("type: local\nworkers: 0\nmemry: 1 GiB\nmemory: x\n")
    assert {problem.line for problem in caught.value.problems} == {2, 3, 4}
    assert "Did you mean 'memory'?" in str(caught.value)


def test_variables_are_replaced_in_files(tmp_path, monkeypatch):
    path = tmp_path / "c.yaml"
    path.write_text("workers: ${HSI_TEST_WORKERS}\nscratch: ${HSI_TEST_SCRATCH:-/tmp}\n")
    monkeypatch.setenv("HSI_TEST_WORKERS", "3")
    assert read_cluster(path) == LocalConfig(workers=3, scratch="/tmp")
    monkeypatch.delenv("HSI_TEST_WORKERS")
    with pytest.raises(ConfigError, match=r"c\.yaml:1: .*HSI_TEST_WORKERS is not set"):
        read_cluster(path)


def test_connecting_with_a_wrong_file_starts_nothing(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yaml: there is no such file"):
        connect(tmp_path / "no.yaml")


def test_paths_are_relative_to_the_file(tmp_path):
    local, there = tmp_path / "local.yaml", tmp_path / "there.yaml"
    local.write_text("scratch: tmp\n")
    there.write_text("type: existing\nscheduler_file: /run/scheduler.json\n")
    assert read_cluster(local).scratch == str(tmp_path / "tmp")
    assert read_cluster(there).scheduler_file == "/run/scheduler.json"
