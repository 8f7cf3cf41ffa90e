import sys

import pytest

from hllm.config import Config
from hllm.errors import ConfigError, MissingExtraError
from hllm.recipe.tracking import TrackingConfig
from hllm.runs.run import Run
from hllm.training.tracking import TensorBoard


def scalars(folder):
    """Read the event files back with TensorBoard's own reader: {tag: [(step, value)]}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


STEP = {"event": "step", "stage": 0, "epoch": 0}


def test_steps_and_validations_become_scalars_at_their_step(tmp_path):
    board = TensorBoard(tmp_path, step=0)
    board.write({**STEP, "step": 1, "loss": 2.0, "learning_rate": 0.25, "name": "user", "finished": True})
    board.write({**STEP, "step": 2, "loss": 1.5, "learning_rate": 0.125})
    board.write({"event": "validation", "stage": 0, "epoch": 0, "step": 2, "ndcg@10": 0.5})
    board.write({"event": "memory", "step": 2, "peak_bytes": 4096})
    board.write({"event": "start", "device": 3})
    board.close()
    assert scalars(tmp_path) == {
        "train/loss": [(1, 2.0), (2, 1.5)],
        "train/learning_rate": [(1, 0.25), (2, 0.125)],
        "validation/ndcg@10": [(2, 0.5)],
        "memory/peak_bytes": [(2, 4096.0)],
    }


def test_steps_that_a_resumed_run_does_again_are_shown_once(tmp_path):
    first = TensorBoard(tmp_path, step=0)
    for step in (1, 2, 3, 4):
        first.write({**STEP, "step": step, "loss": float(step)})
    first.close()
    again = TensorBoard(tmp_path, step=2)  # the checkpoint was made after step 2
    for step in (3, 4, 5):
        again.write({**STEP, "step": step, "loss": 10.0 * step})
    again.close()
    assert scalars(tmp_path)["train/loss"] == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0), (5, 50.0)]


def test_a_real_runs_events_are_all_there(tmp_path, trained_folder):
    events = Run(trained_folder).events()
    board = TensorBoard(tmp_path, step=0)
    for event in events:
        board.write(event)
    board.close()
    read = scalars(tmp_path)
    assert read["train/loss"] == [(e["step"], pytest.approx(e["loss"])) for e in events if e["event"] == "step"]
    checks = [e for e in events if e["event"] == "validation"]
    assert read["validation/ndcg@10"] == [(e["step"], pytest.approx(e["ndcg@10"])) for e in checks]
    assert {"train/gradient_norm", "train/mean_cosine", "validation/recall@10"} <= set(read)
    assert not {"train/step", "train/stage", "train/epoch"} & set(read)


def test_without_tensorboard_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r'tracking\.tensorboard needs .*: pip install "hllm\[track\]"'):
        TensorBoard(tmp_path, step=0)


def test_tracking_is_off_unless_asked_for_and_knows_its_keys():
    assert not TrackingConfig().tensorboard
    assert issubclass(TrackingConfig, Config)
    with pytest.raises(ConfigError, match=r"unknown key 'tensorbord' \(did you mean 'tensorboard'\?\)"):
        TrackingConfig.from_dict({"tensorbord": True}, where="test")
