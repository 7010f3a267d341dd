"""Cluster YAMLs of queues, SSH and Kubernetes: what they mean, their mistakes, their scripts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from commands import command
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.cluster import QueueConfig, read_cluster, refuse_strangers
from hsi_batch.cluster.driver import driver_script, step_script
from hsi_batch.cluster.fields import clock
from hsi_batch.cluster.owned import version_table
from hsi_batch.cluster.queues import QUEUES
from hsi_batch.cluster.scripts import script_of
from hsi_batch.documents import read_yaml
from hsi_batch.errors import ConfigError

SHIPPED = Path(__file__).parents[2] / "cluster"
QUEUED = ("slurm", "pbs", "lsf", "sge")


def read(text):
    return read_cluster(read_yaml("c.yaml", text=text, collect=True))


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_are_right(path):
    assert read_cluster(path).type == path.stem.partition("_")[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", 5400),
        ("2h", 7200),
        ("1.5 h", 5400),
        ("01:30:00", 5400),
        ("00:45", 2700),
        ("1-12:00:00", 129600),
        ("300", 300),
    ],
)
def test_times_are_read_as_people_write_them(text, seconds):
    assert read(f"type: slurm\nwalltime: {text}").walltime == seconds


@given(st.integers(60, 10**7))
def test_a_time_is_written_as_it_was_read(seconds):
    assert read(f"type: slurm\nwalltime: '{clock(seconds)}'").walltime == seconds


@given(st.integers(60, 10**6))
def test_workers_end_before_their_job_does(walltime):
    lifetime, stagger = QueueConfig(type="slurm", walltime=walltime).lifetime()
    assert 0 < lifetime - stagger < lifetime + stagger < walltime
    assert walltime - lifetime - stagger >= min(120, 0.1 * walltime) - 1e-6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("type: slurm\nwalltime: soon", r"c\.yaml:2: walltime: write a time such as 90m"),
        ("type: slurm\nmemory: much", r"c\.yaml:2: memory: write a size"),
        ("type: pbs\npattern: allocation", "needs SLURM"),
        ("type: slurm\nadaptive: {minimum: 3, maximum: 2}", "`minimum` is more than `maximum`"),
        ("type: slurm\nqueue: 'a; rm -rf x'", "queue: "),
        ('type: slurm\nsetup: ["a\\nb"]', "setup.0"),
        ("type: slurm\ngroups: {gpu: {worker: 1}}", "groups.gpu.worker.*Did you mean 'workers'"),
        ("type: ssh", "key 'hosts' is missing"),
        ("type: ssh\nhosts: [{host: a, port: 0}]", r"hosts\.0\.port"),
        ("type: kubernetes", "key 'image' is missing"),
        ("type: gateway", "key 'address' is missing"),
        ("type: slrm\nworkers: 2", "Did you mean 'slurm'"),
    ],
)
def test_a_mistake_is_named_with_its_place(text, says):
    with pytest.raises(ConfigError, match=says):
        read(text)


def test_all_mistakes_come_at_once():
    with pytest.raises(ConfigError) as caught:
        read("type: slurm\nwalltim: 2h\nmemory: x\nsetup: 3\ndriver: {memry: 1}\nworkers: 0\n")
    assert {problem.line for problem in caught.value.problems} == {2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    "line",
    [
        "password: abc",
        "options: {api_key: abc}",
        "setup: [export AWS_SECRET_ACCESS_KEY=abc123abc]",
        "directives: ['--export=MY_TOKEN=abc123abc']",
        "setup: ['git clone https://me:abc123abc@example.org/x']",
        "setup: ['curl -H AKIAABCDEFGHIJKLMNOP']",
        "options: {job_script_prologue: ['-----BEGIN RSA PRIVATE KEY-----']}",
    ],
)
def test_secrets_are_refused_and_not_repeated(line):
    with pytest.raises(ConfigError, match=r"c\.yaml:2: .*looks like a secret") as caught:
        read(f"type: slurm\n{line}\n")
    assert "`environment`" in str(caught.value)
    assert "abc123abc" not in str(caught.value)


def test_names_of_secrets_are_none():
    assert read("type: slurm\nenvironment: [AWS_SECRET_ACCESS_KEY]").environment
    assert read("type: ssh\nhosts: [{host: a}]\nkey_file: ~/.ssh/id").key_file


@pytest.mark.parametrize("kind", QUEUED)
def test_a_workflow_may_not_send_jobs(kind):
    with pytest.raises(ConfigError, match="--cluster FILE"):
        refuse_strangers(QueueConfig(type=kind), "w.yaml")


@pytest.mark.parametrize("kind", QUEUED)
def test_job_scripts_ask_for_what_the_file_says(kind, tmp_path):
    text = (
        f"type: {kind}\nqueue: fast\naccount: mine\nmemory: 3 GiB\nwalltime: 2h\n"
        "scratch: $TMPDIR\nsetup: [module load x]\nresources: {TRAIN: 1}\n"
    )
    config = read(text)
    worker = script_of(config)
    driver = driver_script(config, "hsi-1", tmp_path, ["run", "a b.yaml"])
    for script in (worker, driver):
        done = subprocess.run(
            ["bash", "-n"], check=False, input=script, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        mark = QUEUES[kind].mark
        asked = " ".join(line for line in script.splitlines() if line.startswith(mark + " "))
        assert "fast" in asked
        assert "mine" in asked
        assert "OMP_NUM_THREADS=1" in script
        assert script.index("module load x") < script.index("python")
    assert "02:00" in worker
    assert "--nthreads 1" in worker
    assert "--memory-limit 3.00GiB" in worker
    assert "--lifetime 6840s --lifetime-stagger 240s" in worker
    assert "--local-directory $TMPDIR" in worker
    assert "--resources TRAIN=1" in worker
    assert "'a b.yaml'" in driver
    assert "timeout --foreground --signal=TERM --kill-after=60 6900" in driver
    assert QUEUES[kind].again in driver


def test_variables_are_named_where_jobs_get_none(tmp_path):
    for kind, line in (("pbs", "#PBS -v A_TOKEN,B"), ("sge", "#$ -v A_TOKEN,B")):
        config = read(f"type: {kind}\nenvironment: [A_TOKEN, B]")
        assert line in script_of(config).splitlines()
        assert line in driver_script(config, "n", tmp_path, []).splitlines()


def test_an_array_gives_each_job_its_number(tmp_path):
    config = read("type: slurm\nmemory: 1 GiB\n")
    script = step_script(config, "n", tmp_path, "s", ["slice", "K/7", "w.yaml"], slices=7)
    assert "#SBATCH --array=1-7" in script
    (line,) = (line for line in script.splitlines() if "hsi_batch slice" in line)
    said = subprocess.run(
        ["bash", "-c", f"SLURM_ARRAY_TASK_ID=3; echo {line}"],
        check=True,
        text=True,
        capture_output=True,
    )
    assert said.stdout.split()[-3:] == ["slice", "3/7", "w.yaml"]


def test_a_manifest_says_what_the_file_does():
    text = (
        "type: kubernetes\nimage: x/y:1\nworkers: 7\nmemory: 3 GiB\nnamespace: n\nclaim: c\n"
        "mount: /d\nvariables_from: keys\n"
    )
    job = yaml.safe_load(script_of(read(text)))
    assert (job["apiVersion"], job["kind"]) == ("kubernetes.dask.org/v1", "DaskJob")
    worker = job["spec"]["cluster"]["spec"]["worker"]
    (container,) = worker["spec"]["containers"]
    assert worker["replicas"] == 7
    assert container["resources"]["limits"]["memory"] == "3072Mi"
    for part in (worker, job["spec"]["job"], job["spec"]["cluster"]["spec"]["scheduler"]):
        (each,) = part["spec"]["containers"]
        assert each["image"] == "x/y:1"
        assert each["envFrom"] == [{"secretRef": {"name": "keys"}}]
        assert each["volumeMounts"] == [{"name": "data", "mountPath": "/d"}]
        assert part["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "c"}
    with pytest.raises(ConfigError, match="need no script"):
        script_of(read("type: local"))


def test_versions_that_differ_are_a_table():
    ours = {"dask": "1", "zarr": "3.1"}
    differing, table = version_table(ours, {"a": ours, "b": {"dask": "1"}, "c": {**ours}})
    assert differing == ["zarr"]
    assert table.splitlines()[1].split() == [
        "zarr",
        "3.1",
        "missing",
        "(1",
        "of",
        "3,",
        "first",
        "b)",
    ]
    assert version_table(ours, {"a": ours})[0] == []


def test_a_dry_run_of_slices_prints_every_job_and_sends_none(tmp_path):
    """No batch system is needed for it; every option reaches the job that it is for."""
    workflow = tmp_path / "w.yaml"
    pipeline = SHIPPED.parent / "workflows" / "pipelines" / "rx_global.yaml"
    parts = "fit: {out: f.yaml}\nscore: {out: s.zarr}\n"
    workflow.write_text(f"archive: a.zarr\nsources: in\npipeline: {pipeline}\n{parts}")
    (tmp_path / "in").mkdir()
    submit = ["submit", workflow, "--cluster", SHIPPED / "slurm.yaml", "--slices", "3"]
    said = command(*submit, "--dry-run", "--replace", "--yes", "--max-failed", "2").checked()
    assert said.code == 0
    lines = [line for line in said.out.splitlines() if str(workflow) in line]
    init, *rest = (line for line in lines if "convert" in line)
    assert "init" in init
    assert "--replace --yes" in init
    assert len(lines) == 8
    assert sum("--replace" in line for line in lines) == 1
    assert rest
    assert all(("--max-failed 2" in line) == (" init " not in line) for line in lines)
    assert [p.name for p in tmp_path.iterdir() if "hsi-batch" in p.name] == []
    refused = command(*submit, "--only-failed").checked()
    assert (refused.code, "--slices knows no --only-failed" in refused.err) == (2, True)
