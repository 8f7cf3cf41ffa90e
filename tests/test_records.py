"""Results and logs with hashes of their own."""

import json
import os
from pathlib import Path

import pytest

from hllm import records
from hllm.errors import CheckpointError, HllmWarning, StorageError

EVENTS = [{"event": "step", "step": n, "loss": 1 / n} for n in (1, 2, 3)]


@pytest.fixture
def log(tmp_path) -> Path:
    for event in EVENTS:
        records.append(tmp_path / "log.jsonl", event, of="a run")
    return tmp_path / "log.jsonl"


def test_a_log_is_read_as_it_was_written(log):
    assert records.read(log, of="a run") == (EVENTS, {})
    assert records.read(log.with_name("none.jsonl")) == ([], {})
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3], "any program reads it"


def test_every_flipped_bit_of_a_log_is_found(log):
    """One byte of a log changed the curves and the count of evaluations, or ended in a traceback."""
    content = log.read_bytes()
    for place in range(len(content)):
        for bit in (0, 5):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            log.write_bytes(flipped)
            found, damaged = records.read(log, of="a run")
            assert all(event in EVENTS for event in found)
            if len(found) == len(EVENTS):
                assert json.loads(flipped.splitlines()[0]) == json.loads(content.splitlines()[0]), "blanks"
            else:
                assert damaged or place == len(content) - 1, "the last line has lost its end"


def test_lines_of_another_run_are_not_taken(log):
    found, damaged = records.read(log, of="another run")
    assert (found, sorted(damaged)) == ([], [1, 2, 3])
    with pytest.warns(HllmWarning, match=r"log.jsonl: 3 lines, the first of them line 1, are damaged or of"):
        assert records.read_good(log, of="another run") == []


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_cut_line_is_passed_over_and_moved_aside_when_the_log_goes_on(log, cut):
    """A line that a full disk had cut made every later evaluation and report fail, until somebody edited the file."""
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines)[:-cut])
    assert records.read_good(log, of="a run") == EVENTS[:2], "as after a kill: nothing to warn of"
    records.append(log, {"event": "step", "step": 4}, of="a run")
    if cut > 1:
        with pytest.warns(HllmWarning, match=r"line 3 is damaged or .*, and moved to log.jsonl.damaged"):
            found = records.mend(log, of="a run")
        assert found == [*EVENTS[:2], {"event": "step", "step": 4}]
        assert log.with_name("log.jsonl.damaged").read_bytes() == lines[2][:-cut] + b"\n"
    assert records.read(log, of="a run")[1] == {}


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"null\n", b"{}\n", b'"text"\n', b"\n\n\n", b"\0" * 999]
)
def test_a_log_of_anything_else_is_warned_of_and_kept_aside(tmp_path, content):
    log = tmp_path / "log.jsonl"
    log.write_bytes(content)
    records.append(log, EVENTS[0])
    with pytest.warns(HllmWarning, match="damaged or of another run"):
        assert records.mend(log) == EVENTS[:1]
    assert log.with_name("log.jsonl.damaged").read_bytes().strip(b"\n") == content.strip(b"\n")


def test_a_log_that_is_a_link_is_not_written_through(log, tmp_path):
    """Evaluating a stranger's run appended to whatever file its evaluations.jsonl was linked to."""
    target, link = tmp_path / "precious", tmp_path / "link.jsonl"
    target.write_text("mine")
    link.symlink_to(target)
    with pytest.raises(StorageError, match=r"link\.jsonl cannot be written \(it is a symbolic link\)"):
        records.append(link, EVENTS[0])
    link.unlink()
    link.symlink_to(tmp_path / "new")
    with pytest.raises(StorageError, match="it is a symbolic link"):
        records.append(link, EVENTS[0])
    assert target.read_text() == "mine"
    assert not (tmp_path / "new").exists()
    log.with_name("log.jsonl.damaged").symlink_to(target)
    log.write_bytes(b"damaged\n")
    with pytest.warns(HllmWarning, match="moved"):
        records.mend(log)
    assert target.read_text() == "mine"


def test_a_copy_made_of_hard_links_does_not_change_the_original(log, tmp_path):
    """`cp -al` makes such copies; what was appended to one stood in the other."""
    before = log.read_bytes()
    os.link(log, tmp_path / "copy.jsonl")
    records.append(tmp_path / "copy.jsonl", {"event": "step", "step": 4}, of="a run")
    assert log.read_bytes() == before
    assert records.read(tmp_path / "copy.jsonl", of="a run")[0] == [*EVENTS, {"event": "step", "step": 4}]


def test_a_pipe_is_no_log(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="cannot be written"):
        records.append(tmp_path / "pipe", EVENTS[0])


def _same(flipped: bytes, content: bytes) -> bool:
    """Tell whether the change was in blanks alone."""
    try:
        return json.loads(flipped) == json.loads(content)
    except ValueError:
        return False


def test_every_flipped_bit_of_a_result_is_found(tmp_path):
    """A card printed .9936 for .5936 after one byte of evaluation.json was changed."""
    file = tmp_path / "result.json"
    results = [{"name": "popularity", "mean": 0.5936}, {"name": "model", "groups": {"cold": [1, 2]}, "none": None}]
    content = json.dumps([records.sealed(each) for each in results], indent=1).encode()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 4
        file.write_bytes(flipped)
        if _same(flipped, content):
            assert records.read_sealed(file, again="") == results
            continue
        with pytest.raises(CheckpointError, match=r"result\.json is damaged: .*; make it again with hllm evaluate"):
            records.read_sealed(file, again="hllm evaluate")
    file.write_bytes(content)
    assert records.read_sealed(file, again="") == results
    with pytest.raises(CheckpointError, match="it holds 2 results, expected 1; make it again with hllm ablate"):
        records.read_one(file, again="hllm ablate")
    for other in (json.dumps(results), "null", "3", "[[]]", "[" * 100_000):
        file.write_text(other)
        with pytest.raises(CheckpointError, match="is damaged: "):
            records.read_sealed(file, again="")


def test_every_flipped_bit_of_sealed_bytes_is_found():
    content = records.seal_bytes(b"PAR1 numbers " + records.SEAL_PLACE + b" more PAR1")
    records.check_bytes(content)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        with pytest.raises(ValueError, match="not those that it was sealed with"):
            records.check_bytes(bytes(flipped))
