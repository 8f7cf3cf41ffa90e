"""Any two tables, in JSON lines, make a dataset that is right, or an error of one sentence."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hllm.data.build import build_dataset
from hllm.data.cuts.leave_one_out import LeaveOneOutSplit
from hllm.data.dataset import Dataset
from hllm.data.schema import DataConfig
from hllm.data.split import split_dataset
from hllm.errors import DataError

from .conftest import NIGHTLY

EXAMPLES = 5_000 if NIGHTLY else 500
LETTERS = st.characters() | st.sampled_from('\x00\ud800\udfff\u202e\u200b\ufeff\n\r\t"\\,; é🙂')
TEXTS = st.text(LETTERS, max_size=6) | st.sampled_from(["a", "b", "", " ", "nan", "null", "x" * 5_000])
NAMES = ["a", "b", "c", "\x00", "\ud800", "7", "07", "é"]
IDS = st.one_of(*[st.sampled_from(NAMES)] * 6, TEXTS, st.none())
TIMES = (
    st.one_of(*[st.integers(0, 9)] * 4)
    | st.integers(-(2**53), 2**53)
    | st.none()
    | st.sampled_from(["2020-01-02", "soon"])
)
LOGS = st.lists(st.tuples(IDS, IDS, TIMES), max_size=12)
ITEMS = st.lists(st.tuples(IDS, TEXTS | st.none()), max_size=8, min_size=1)
LENIENT = DataConfig.from_dict(
    {
        "unknown_items": "keep", "items_without_text": "keep", "missing_user_ids": "drop", "missing_item_ids": "drop",
        "unreadable_times": "drop", "duplicate_items": "drop",
    },
    where="test",
)  # fmt: skip


def outcome(folder: Path, log: list, items: list, config: DataConfig) -> Dataset | str:
    """Return the dataset of two tables, or the sentence that refuses them."""
    for name, rows, columns in (
        ("log", log, ("user_id", "item_id", "timestamp")),
        ("items", items, ("item_id", "title")),
    ):
        lines = [json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    try:
        return build_dataset(folder / "log.jsonl", folder / "items.jsonl", config)
    except DataError as error:
        return str(error)


def facts(made: Dataset | str) -> object:
    """Return what two preparations of the same tables have to agree on."""
    return made if isinstance(made, str) else (made.fingerprint, made.users.to_list(), made.items.rows())


@pytest.mark.reliability("any table")
@pytest.mark.filterwarnings("ignore::hllm.errors.HllmWarning")
def test_any_ids_texts_and_times_make_a_dataset_or_a_sentence(trials):
    made_ones = []

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(LOGS, ITEMS, st.booleans(), st.randoms(use_true_random=False))
    def check(log, items, lenient, random):
        config = LENIENT if lenient else DataConfig()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            made = outcome(folder, log, items, config)
            assert facts(outcome(folder, log, items, config)) == facts(made)
            if isinstance(made, str):
                assert made.strip()
                return
            made_ones.append(made)
            times = [time for _, _, time in log]
            if len(set(times)) == len(times):
                shuffled = random.sample(log, len(log))
                other = outcome(folder, shuffled, items, config)
                assert not isinstance(other, str), other
                assert other.fingerprint == made.fingerprint
            made.save(folder / "dataset")
            assert facts(Dataset.load(folder / "dataset")) == facts(made)
        try:
            split = split_dataset(made, LeaveOneOutSplit())
        except DataError:
            return  # too few interactions to learn from
        for user in range(made.num_users):
            start, end = made.offsets[user], made.offsets[user + 1]
            trained = [made.timestamps[row] for row in range(start, end) if split.training[row]]
            for part in (split.validation, split.test):
                later = [made.timestamps[row] for row in part if start <= row < end]
                assert not trained or all(max(trained) <= time for time in later)

    check()
    assert len(made_ones) > EXAMPLES // 20, "some tables made a dataset"
    trials(EXAMPLES)
