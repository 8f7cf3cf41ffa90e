"""Tracking: the places that a run's numbers go to besides metrics.jsonl."""

# Proved by tests/training/test_tracking.py.

from hllm.config import Config


class TrackingConfig(Config):
    """The places that a run's numbers go to besides metrics.jsonl, which is always written."""

    tensorboard: bool = False
    """Also write RUN/tensorboard, to be watched with `tensorboard --logdir RUN`; needs the extra `track`."""
