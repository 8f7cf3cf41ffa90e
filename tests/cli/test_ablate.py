import json
import re

import pytest


def stored(run, name):
    return json.loads((run / name).read_text())


def test_ablate_prints_and_stores_drops_and_adds_to_earlier_ones(hllm, run):
    code, out, _ = hllm("ablate", "--run", run, "--only", "shuffled-text")
    assert code == 0
    assert "ndcg@10 of mine" in out
    assert "split leave-one-out" in out
    assert re.search(r"shuffled-text +\d\.\d+ +-?\d\.\d+ \[", out)
    code, out, _ = hllm("ablate", "--run", run, "--only", "shuffled-order, popularity", "--json")
    assert code == 0
    assert [result["switch"] for result in json.loads(out)["results"]] == ["shuffled-order", "popularity"]
    kept = stored(run, "ablations.json")
    assert [result["switch"] for result in kept["results"]] == ["shuffled-order", "shuffled-text", "popularity"]
    assert kept["protocol"]["part"] == "test"


def test_ablations_of_the_validation_part_are_kept_apart(hllm, run):
    assert hllm("ablate", "--run", run, "--only", "last-item", "--part", "validation")[0] == 0
    assert stored(run, "ablations-validation.json")["protocol"]["part"] == "validation"
    assert not (run / "ablations.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "shufled-text"], "unknown ablation switch 'shufled-text' (did you mean 'shuffled-text'?)"),
        (["--only", ","], "no ablation switch is named; known: shuffled-order"),
        (["--part", "train"], "--part is 'train'"),
    ],
)
def test_wrong_names_exit_with_2_and_store_nothing(hllm, run, arguments, message):
    code, out, err = hllm("ablate", "--run", run, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not (run / "ablations.json").exists()


def test_a_damaged_file_of_ablations_is_named(hllm, run):
    (run / "ablations.json").write_text('{"name": ')
    code, _, err = hllm("ablate", "--run", run, "--only", "last-item")
    assert code == 2
    assert re.search(r"CheckpointError: \S+ablations.json is damaged: .*; make it again", err)
