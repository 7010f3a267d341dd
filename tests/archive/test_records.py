"""Records outlive crashes: a torn line costs that line, writers at the same time do not mix."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest
from archive_helpers import run_script, start_script
from hypothesis import given
from hypothesis import strategies as st

from hsi_batch.archive import BlockKey
from hsi_batch.archive.records import BlockRecord, Records, RecordWriter
from hsi_batch.stages.run import failed_record

KEYS = st.builds(
    lambda s, f, y: BlockKey(s, f, y, y + 16),
    st.sampled_from(["a", "b"]),
    st.integers(0, 3),
    st.integers(0, 3).map(lambda n: 16 * n),
)
JSON = st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=5) | st.booleans()
RECORDS = st.builds(
    BlockRecord,
    key=KEYS,
    outcome=st.sampled_from(["done", "failed"]),
    digest=st.text(max_size=8),
    tail=st.text("0123456789abcdef", max_size=8),
    checksum=st.integers(0, 2**32 - 1),
    reason=st.text(max_size=20),
    seconds=st.floats(0, 1e6),
    worker=st.text(max_size=5),
    info=st.dictionaries(st.text(max_size=5), JSON, max_size=3),
)


def record(number, digest="d", **options):
    return BlockRecord(BlockKey("s", number, 0, 16), "done", digest, **options)


def write(folder, name, *records):
    with RecordWriter(folder, name) as writer:
        writer.write(*records)


# --- what was written is read -------------------------------------------------------------------


@given(st.lists(RECORDS, max_size=8))
def test_the_last_record_of_a_block_counts(records):
    with tempfile.TemporaryDirectory() as folder:
        stored = Records(Path(folder) / "convert")
        run = stored.new_run()
        with RecordWriter(run, "t-000000") as writer:
            for one in records:
                writer.write(one)
                # Each line is there before the next; a reader needs no end of the writer.
                assert stored.load()[one.key] == one
        assert stored.load() == {one.key: one for one in records}


@given(st.lists(st.lists(RECORDS, max_size=4), min_size=1, max_size=4))
def test_later_runs_win_and_packing_changes_nothing(runs):
    with tempfile.TemporaryDirectory() as folder:
        stored = Records(Path(folder) / "convert")
        expected = {}
        for number, records in enumerate(runs):
            write(stored.new_run(), "t-000000", *records)
            expected |= {one.key: one for one in records}
            assert stored.load() == expected
            if number % 2:
                stored.pack(stored.load().values())
                assert [p.name for p in stored.folder.iterdir()] == ["packed.jsonl"]
                assert stored.load() == expected


def test_runs_are_numbered_as_numbers(tmp_path):
    stored = Records(tmp_path / "convert")
    assert stored.load() == {}
    assert [stored.new_run().name for _ in range(11)][-1] == "000011"
    write(tmp_path / "convert" / "000002", "t", record(0, "old"))
    write(tmp_path / "convert" / "000010", "t", record(0, "new"))
    assert stored.load()[record(0).key].digest == "new"


def test_a_crash_between_packing_and_removing_leaves_the_same_records(tmp_path):
    stored = Records(tmp_path / "convert")
    write(stored.new_run(), "t", record(0, "a"), record(1, "a"))
    run = tmp_path / "convert" / "000001" / "t.jsonl"
    lines = run.read_bytes()
    stored.pack([record(0, "a"), record(1, "a")])
    run.parent.mkdir()
    run.write_bytes(lines)
    assert stored.load() == {record(i).key: record(i, "a") for i in range(2)}


# --- torn lines ---------------------------------------------------------------------------------


@given(st.lists(RECORDS, min_size=1, max_size=5, unique_by=lambda r: r.key), st.data())
def test_a_file_cut_anywhere_costs_the_line_that_was_cut(records, data):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        write(run, "t-000000", *records)
        file = run / "t-000000.jsonl"
        raw = file.read_bytes()
        cut = data.draw(st.integers(0, len(raw)))
        file.write_bytes(raw[:cut])
        with RecordWriter(run, "t-000000") as again:
            whole = raw[:cut].count(b"\n")
            # A line of which only the end of line is missing is whole.
            assert list(again.earlier.values())[:whole] == records[:whole]
            assert len(again.earlier) <= whole + 1
            # The same task, tried again on another worker, writes on behind the torn line.
            again.write(*records)
        with RecordWriter(run, "t-000000") as third:
            assert third.earlier == {one.key: one for one in records}


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_garbage_between_records_is_passed_over(before, after):
    with tempfile.TemporaryDirectory() as folder:
        stored = Records(Path(folder) / "convert")
        file = stored.new_run() / "t.jsonl"
        line = record(3).to_json().encode()
        file.write_bytes(b"\n".join([before, line, after, b""]))
        assert stored.load() == {record(3).key: record(3)}


@pytest.mark.parametrize(
    "line", ["{}", "[]", "3", "null", '{"key": 3}', '{"key": {}, "outcome": "done"}', '"x"', "{"]
)
def test_json_that_is_no_record_is_passed_over(tmp_path, line):
    (tmp_path / "000001").mkdir()
    (tmp_path / "000001" / "t.jsonl").write_text(f"{line}\n{record(1).to_json()}\n")
    assert list(Records(tmp_path).load()) == [record(1).key]


# --- tasks that are tried again -----------------------------------------------------------------


def test_a_part_of_a_task_knows_what_the_whole_and_itself_did_before(tmp_path):
    write(tmp_path, "convert-000003", record(0), record(1, "old"))
    write(tmp_path, "convert-000003.1", record(1, "new"))
    write(tmp_path, "convert-000004", record(2))
    write(tmp_path, "convert-000003.0", record(3))
    with RecordWriter(tmp_path, "convert-000003.1") as writer:
        assert writer.earlier == {
            record(0).key: record(0),
            record(1).key: record(1, "new"),
        }


# --- processes ----------------------------------------------------------------------------------

WRITE = """
import sys
from pathlib import Path
from hsi_batch.archive import BlockKey
from hsi_batch.archive.records import BlockRecord, RecordWriter
folder, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
with RecordWriter(folder, name) as writer:
    for number in range(int(sys.argv[3])):
        key = BlockKey(name, number, 0, 16)
        writer.write(BlockRecord(key, "done", "d", reason="x" * (number % 7) * 1000))
        if number % 50 == 0:
            print(number, flush=True)
"""


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    stored = Records(tmp_path / "convert")
    run = stored.new_run()
    writers = [start_script(WRITE, run, f"t-{i}", 300) for i in range(2)]
    for writer in writers:
        _, errors = writer.communicate()
        assert writer.returncode == 0, errors
    expected = {BlockKey(f"t-{i}", number, 0, 16) for i in range(2) for number in range(300)}
    assert stored.load().keys() == expected


def test_what_a_killed_writer_recorded_is_there(tmp_path):
    stored = Records(tmp_path / "convert")
    run = stored.new_run()
    writer = start_script(WRITE, run, "t-0", 10**9)
    lines = [writer.stdout.readline() for _ in range(4)]
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    told = int(lines[-1])
    assert told == 100
    found = sorted(key.frame for key in stored.load())
    assert found == list(range(len(found)))
    assert len(found) > told


FULL_DISK = """
import resource, sys
from pathlib import Path
from hsi_batch.archive import BlockKey
from hsi_batch.archive.records import BlockRecord, RecordWriter
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
writer = RecordWriter(Path(sys.argv[1]), "t")
record = BlockRecord(BlockKey("s", 0, 0, 16), "done", "d")
writer.write(record)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(record.to_json()) + 20, most))
writer.write(BlockRecord(BlockKey("s", 1, 0, 16), "done", "d"))
print("recorded")
"""


def test_a_record_that_does_not_fit_on_the_disk_is_an_error(tmp_path):
    done = run_script(FULL_DISK, tmp_path / "000001")
    assert "recorded" not in done.output
    assert "File too large" in done.errors
    # The run goes on when there is space again.
    write(tmp_path / "000001", "t", record(2))
    assert sorted(key.frame for key in Records(tmp_path).load()) == [0, 2]


def test_a_record_is_on_the_disk_within_a_second_however_long_the_task_takes(tmp_path, monkeypatch):
    synced = threading.Event()
    fsync = os.fsync

    def noted(handle):
        fsync(handle)
        synced.set()

    monkeypatch.setattr(os, "fsync", noted)
    with RecordWriter(tmp_path, "t-000000") as writer:
        for number in range(2):
            writer.write(record(number))
            # Loaded machines wake threads late; without the timer it would never happen.
            assert synced.wait(30)
            synced.clear()


def test_a_failure_keeps_its_reason_its_traceback_and_when_it_was(tmp_path):
    before = time.time()
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018
    failed = failed_record(BlockKey("s", 0, 0, 16), "d", caught.value, "worker")
    with RecordWriter(tmp_path / "000001", "t-000000") as writer:
        writer.write(failed)
    (found,) = Records(tmp_path).load().values()
    assert (found.outcome, found.reason, found.worker) == ("failed", "division by zero", "worker")
    assert "test_records.py" in found.traceback
    assert "ZeroDivisionError: division by zero" in found.traceback
    assert before - 0.001 <= found.at <= time.time()
