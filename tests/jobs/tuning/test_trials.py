import math

import pytest

from hllm.errors import CheckpointError
from hllm.jobs.tuning.search import SearchConfig
from hllm.jobs.tuning.trials import Trial, as_overrides, ask, ranked, read_trials

SEARCH = SearchConfig.from_dict(
    {"space": [
        {"key": "rate", "low": 1e-4, "high": 1e-1, "log": True},
        {"key": "layers", "low": 1, "high": 8},
        {"key": "kind", "choices": ["a", "b", True]},
    ]},
    where="test",
)  # fmt: skip


def trial(number, overrides, value):
    state = "failed" if value is None else "complete"
    return Trial(number=number, overrides=overrides, value=value, seconds=1.0, state=state, error=None)


def search(num_trials, seed, value_of):
    done = []
    for number in range(num_trials):
        chosen = ask(SEARCH, done, seed)
        done.append(trial(number, chosen, value_of(chosen)))
    return done


def test_values_are_of_the_kind_and_in_the_range_that_the_space_says():
    done = search(12, 0, lambda chosen: None)
    assert all(type(t.overrides["layers"]) is int and 1 <= t.overrides["layers"] <= 8 for t in done)
    assert all(type(t.overrides["rate"]) is float and 1e-4 <= t.overrides["rate"] <= 1e-1 for t in done)
    assert {t.overrides["kind"] for t in done} <= {"a", "b", True}
    assert len({t.overrides["rate"] for t in done}) == 12, "each trial draws anew"


def test_what_is_tried_next_depends_on_seed_and_trials_only():
    done = search(11, 3, lambda chosen: chosen["rate"])
    read_back = [Trial.model_validate_json(t.model_dump_json()) for t in done]
    assert ask(SEARCH, done, 3) == ask(SEARCH, read_back, 3)
    assert ask(SEARCH, done, 3) != ask(SEARCH, done, 4)


def test_the_search_draws_towards_the_best_values():
    """The best is at rate 1e-2 with 3 layers; the random beginning of ten trials is less near than what follows."""
    distance = []

    def value_of(chosen):
        distance.append(abs(math.log10(chosen["rate"]) + 2) + abs(chosen["layers"] - 3))
        return -distance[-1]

    search(40, 0, value_of)
    assert sum(distance[-10:]) < 0.6 * sum(distance[:10])


def test_the_best_comes_first_and_failed_trials_not_at_all():
    done = [trial(0, {}, 0.2), trial(1, {}, None), trial(2, {}, 0.5), trial(3, {}, 0.5)]
    assert [t.number for t in ranked(done)] == [2, 3, 0]


def test_overrides_are_what_set_takes():
    values = {"a.rate": 1e-05, "a.layers": 2, "a.on": True, "a.kind": 'x "é"'}
    assert as_overrides(values) == ["a.rate=1e-05", "a.layers=2", "a.on=true", 'a.kind="x \\"é\\""']


def test_a_damaged_file_of_trials_is_named(tmp_path):
    assert read_trials(tmp_path) == []
    (tmp_path / "trials.jsonl").write_text(trial(0, {}, 0.5).model_dump_json() + "\n{\n")
    with pytest.raises(CheckpointError, match=r"trials\.jsonl is damaged: .*restore it, or tune anew"):
        read_trials(tmp_path)
