import re
import shutil

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["recommend", "--user", "nobody"],
            "DataError: 1 of 1 users asked for are not in the interactions; first: 'nobody'",
        ),
        (
            ["recommend", "--history", "i1,zz"],
            "DataError: 1 of 2 items asked for are not in the catalogue; first: 'zz'",
        ),
        (["recommend", "--new-item", " "], "DataError: a new item needs text"),
        (["recommend"], "ConfigError: give one of --user ID, --history ID,ID,…, --text SENTENCE or --new-item TEXT"),
        (["recommend", "--text", "hat", "--new-item", "hat"], "--text may also come with --user or --history"),
        (["recommend", "--user", "u1", "--unknown", "ignore"], "--unknown is 'ignore'; expected one of error, skip"),
        (["similar", "--item", "zz"], "DataError: 1 of 1 items asked for"),
        (["similar"], "ConfigError: give one of --item ID or --text TEXT"),
        (["evaluate", "--part", "train"], "ConfigError: --part is 'train'"),
        (["recommend", "--user", "u1", "--history-col", "x"], "--history-col is for a table of requests: give --input"),
        (["recommend", "--history", "i1", "--text-col", "x"], "--text-col is for a table of requests: give --input"),
        (["recommend", "--text", "hat", "--separator", "|"], "--separator is for a table of requests: give --input"),
        (["recommend", "--new-item", "hat", "--candidates", "c.csv"], "--candidates are items to recommend; with"),
        (["recommend", "--user", "u1", "-k", "0"], "Invalid value for '--k'"),
    ],
)
def test_wrong_input_exits_with_2_and_one_sentence(hllm, trained_folder, arguments, message):
    code, out, err = hllm(arguments[0], "--run", trained_folder, *arguments[1:])
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_corrupted_checkpoint_is_named(hllm, trained_folder, tmp_path):
    shutil.copytree(trained_folder, tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "best" / "user_encoder.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    code, _, err = hllm("recommend", "--run", tmp_path / "run", "--user", "u1")
    assert code == 2
    assert re.search(r"user_encoder\.safetensors is damaged: its SHA-256 is \w{12}…, the manifest says", err)


def test_no_run_and_no_verb(hllm, tmp_path):
    code, _, err = hllm("recommend", "--run", tmp_path, "--user", "u1")
    assert (code, "is not a run: it has no recipe.json; make one with hllm train" in err) == (2, True)
    code, _, err = hllm("recomend")
    assert (code, "No such command 'recomend'" in err) == (2, True)
