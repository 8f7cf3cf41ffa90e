"""Where a run's numbers go besides metrics.jsonl."""

from hllm.config import Config


class TrackingConfig(Config):
    """Where a run's numbers go besides metrics.jsonl, which is always written."""

    tensorboard: bool = False
    """Also write RUN/tensorboard, to be watched with `tensorboard --logdir RUN`; needs the extra `track`."""
