import json

import pytest


def test_new_items_and_short_histories_stand_in_one_table_with_their_protocols(hllm, trained_folder, trained):
    code, out, _ = hllm("cold-start", "--run", trained_folder, "--baselines", "popularity", "--part", "validation")
    assert code == 0
    assert "COLD ITEMS: " in out
    assert "trained, by the number of items read" in out
    code, out, _ = hllm(
        "cold-start", "--run", trained_folder, "--baselines", "popularity", "--part", "validation", "--json"
    )
    found = json.loads(out)
    kept = trained_folder / "cold-start-validation.json"
    assert json.loads(kept.read_text()) == found
    kept.unlink()
    part = found["short_histories"]
    assert part["lengths"] == [0, 1, 2, 5, None]
    assert part["num_left_out"] == 1, "the shortest of the histories, of 6 to 17 items, has 4 before the target"
    model, popular = part["curves"]["trained"], part["curves"]["popularity"]
    assert model[0] == popular[0] == popular[2], "popularity does not read"
    assert model[1] != model[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", "0,few"], "ConfigError: --lengths is '0,few'; expected numbers of items, such as 0,1,2,5"),
        (["--lengths", "5,1"], "ConfigError: the lengths of histories are [5, 1]; expected ascending numbers"),
        (["--part", "tset"], "--part is 'tset'; expected"),
        (["--baselines", "trained"], "a run and a baseline are both named 'trained'"),
    ],
)
def test_wrong_calls_are_explained(hllm, trained_folder, options, message):
    code, _, err = hllm("cold-start", "--run", trained_folder, *options)
    assert code == 2
    assert message in err
