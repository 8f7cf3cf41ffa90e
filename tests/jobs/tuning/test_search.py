import pytest

from hllm.errors import ConfigError
from hllm.jobs.tuning.search import SearchConfig, read_search


def test_ranges_choices_and_defaults(tmp_path):
    file = tmp_path / "search.toml"
    file.write_text(
        'max_steps = 100\n[[space]]\nkey = "stages.0.learning_rate"\nlow = 1e-4\nhigh = 1e-2\nlog = true\n'
        '[[space]]\nkey = "model.user.num_layers"\nchoices = [1, 2, 3]\n'
    )
    search = read_search(file)
    assert (search.trials, search.metric, search.max_steps, search.max_seconds_per_trial) == (20, "ndcg@10", 100, None)
    assert [dimension.first for dimension in search.space] == [1e-4, 1]


RANGE = {"key": "stages.0.dropout", "low": 0.0, "high": 0.5}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"space": []}, r"'space': .*at least 1 item"),
        ({"space": [RANGE | {"hi": 1.0}]}, r"unknown key 'space\.0\.hi' \(did you mean 'high'\?\)"),
        ({"space": [RANGE], "metric": "ndcg@20"}, r"not measured in validation \(did you mean 'ndcg@\d0'\?\); known: recall@10,"),
        ({"space": [RANGE], "metric": "test/ndcg@10"}, r"not measured in validation"),
        ({"space": [RANGE], "trials": 0}, r"'trials': .*greater than or equal to 1"),
        ({"space": [RANGE, RANGE]}, r"more than one \[\[space\]\] table has the key stages\.0\.dropout"),
        ({"space": [RANGE | {"low": 0.5}]}, r"stages\.0\.dropout: low 0\.5 is not below high 0\.5"),
        ({"space": [RANGE | {"low": float("nan")}]}, r"finite number"),
        ({"space": [RANGE | {"low": True}]}, r"space\.0\.low"),
        ({"space": [RANGE | {"log": True}]}, r"stages\.0\.dropout: log = true needs low > 0, found 0\.0"),
        ({"space": [{"key": "a", "low": 1}]}, r"a needs low and high, or choices"),
        ({"space": [RANGE | {"choices": [1, 2]}]}, r"stages\.0\.dropout has choices and a range; give one of them"),
        ({"space": [{"key": "a", "choices": [1]}]}, r"a needs at least two choices, all different"),
        ({"space": [{"key": "a", "choices": [1, 2, 1]}]}, r"a needs at least two choices, all different"),
        ({"space": [{"key": "seed", "choices": [1, 2]}]}, r"seed must be the same for all trials"),
        ({"space": [{"key": "data.time_col", "choices": ["a", ""]}]}, r"must be the same for all trials"),
    ],
)  # fmt: skip
def test_a_wrong_search_file_is_explained(values, message):
    with pytest.raises(ConfigError, match=message):
        SearchConfig.from_dict(values, where="search.toml")


def test_no_search_file(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no search file .*none\.toml; docs/tuning\.md shows one"):
        read_search(tmp_path / "none.toml")


def test_the_fingerprint_is_of_the_search_and_its_limits_not_of_the_number_of_trials():
    def fingerprint(**values):
        return SearchConfig.from_dict({"space": [RANGE]} | values, where="test").fingerprint

    assert fingerprint() == fingerprint(trials=7) == fingerprint(metric="ndcg@10")
    assert len({fingerprint(), fingerprint(max_steps=9), fingerprint(metric="recall@50")}) == 3
