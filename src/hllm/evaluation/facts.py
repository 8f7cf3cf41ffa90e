"""Facts of one run may differ within a table and explain its numbers; a provenance holds all that is known besides."""

# Proved by tests/evaluation/test_protocol.py.

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hllm.config import Config


class RunFacts(Config):
    """Facts of a recommender and its cost; None: not known, or there is no such thing, as for a baseline."""

    checkpoint: str | None = None
    """Fingerprint of the checkpoint that was evaluated."""
    recipe: str | None = None
    """Fingerprint of the recipe."""
    num_parameters: int | None = None
    """Parameters of both tiers, frozen ones too."""
    max_history: int | None = None
    """Items of a history that the model reads: the latest ones."""
    model: str | None = None
    """The kinds of the two tiers."""
    start: str | None = None
    """The trained or imported weights that training started with."""
    training: str | None = None
    """Objective, loss, negatives and frozen tiers of each stage, with every option that is not the default."""
    seed: int | None = None
    """Seed of every random choice in training."""
    epochs: int | None = None
    """Epochs trained, in all stages."""
    epochs_to_best: int | None = None
    """Epochs before the validation that picked the checkpoint."""
    training_s: float | None = None
    """Seconds of training and validation."""
    evaluation_s: float | None = None
    """Seconds of this evaluation's ranking."""
    machine: str | None = None
    """Machine that evaluated it."""
    test_evaluations: int | None = None
    """Number of evaluations of this split's test part for this run's directory, this one included."""

    def line(self) -> str:
        """Return the facts that are known, for people."""
        phrases = {
            "{:,} parameters": self.num_parameters,
            "reads the latest {} items": self.max_history,
            "{0}": self.model,
            "{0:}": self.start,
            "{}": self.training,
            "seed {}": self.seed,
            "best after {} epochs": self.epochs_to_best,
            "{} epochs in all": self.epochs,
            "trained {:,.0f} s": self.training_s,
            "ranked in {:,.1f} s": self.evaluation_s,
            "on {}": self.machine,
            "evaluations of this split's test part: {}": self.test_evaluations,
        }
        return "; ".join(text.format(value) for text, value in phrases.items() if value is not None)


@dataclass(frozen=True)
class Provenance:
    """The rules behind a result's data and split, and the facts of what was evaluated; kept with the result."""

    data_policy: Mapping[str, Any] = field(default_factory=dict)
    """The treatment of the tables' rows."""
    split_options: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the split besides its kind."""
    facts: RunFacts = field(default_factory=RunFacts)
