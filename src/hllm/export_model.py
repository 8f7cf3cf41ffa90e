"""A trained run as a smaller one: its weights in bf16 or int8, with what that costs measured and written beside."""

import shutil
from pathlib import Path

from hllm import artifacts
from hllm.api import Recommender
from hllm.config import Config
from hllm.errors import ConfigError
from hllm.evaluation.compare import Comparison, compare_ranks
from hllm.evaluation.evaluate import Evaluated, Part
from hllm.evaluation.ranks import Contender
from hllm.evaluation.tables import FORMATS
from hllm.models.checkpoint import compact_checkpoint
from hllm.models.compact import Weights
from hllm.training.run import Run
from hllm.training.tables import embed_run_items

METRICS = ("ndcg@10", "recall@10", "recall@50")
_TRAINED = "fp32"


class Size(Config):
    """Bytes before and after."""

    before: int
    after: int

    def __str__(self) -> str:
        """Return both in MB, and the share that is left."""
        return f"{self.before / 1e6:,.1f} MB → {self.after / 1e6:,.1f} MB ({self.after / max(1, self.before):.0%})"


class ExportReport(Config):
    """What an export kept and lost, as its manifest has it under "export"."""

    weights: Weights
    """What the weights of both tiers are kept in; norms, biases and [ITEM] vectors are in fp32."""
    checkpoint: str
    """Fingerprint of the checkpoint that was exported."""
    weights_on_disk: Size
    """The files of both tiers' weights, scales included."""
    run_on_disk: Size
    """The run without its checkpoints to resume from: weights, tokenizer, dataset, item vectors."""
    in_memory: Size
    """Weights of the loaded model. Loading brings them back to fp32, so that memory is as before."""
    select_by: str
    """The metric that the run was selected by."""
    loss: float
    """Share of `select_by` that the export loses; below 0 where it gains."""
    comparison: Comparison
    """Both on the same targets, with intervals and paired tests."""

    def __str__(self) -> str:
        """Return a paragraph and the table for people."""
        return (
            f"{FORMATS['text'](self.comparison)}\n\n"
            f"weights on disk {self.weights_on_disk}; with dataset and item vectors {self.run_on_disk}; "
            f"in memory {self.in_memory}\n"
            f"loses {self.loss:+.2%} of {self.select_by}"
        )


def export_model(
    run: Path, out: Path, weights: Weights, *, part: Part = "validation", max_loss: float | None = None
) -> ExportReport:
    """Write the run at `run` to `out` with its weights in `weights`, whole or not at all, and return what it cost.

    `out` is a run that can be evaluated, embedded and recommended from, but not trained: it holds the recipe, the
    dataset, the checkpoint and item vectors made by that checkpoint. Both are evaluated on `part`. LoRA additions
    become part of the weights. Raises ConfigError if `out` exists, if `run` is an export, and if the export loses more
    than the share `max_loss` of the run's select_by; nothing is written then.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; give a new directory")
    trained = Recommender.load(run)
    details: dict[str, object] = {}
    with artifacts.writing(out, "run", details) as folder:
        smaller = Run(folder)
        compact_checkpoint(trained.run.best, smaller.best, weights)
        for path in (trained.run.recipe, trained.run.metrics):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        shutil.copytree(trained.run.dataset, smaller.dataset)
        embed_run_items(smaller, smaller.table)
        report = _measured(trained, Recommender.load(folder), weights, part)
        if max_loss is not None and report.loss > max_loss:
            raise ConfigError(
                f"in {weights} the model loses {report.loss:.2%} of {report.select_by} on the {part} part "
                f"({_means(report)}), more than the {max_loss:.2%} allowed; nothing was written. Take bf16, or allow "
                "more with --max-loss"
            )
        details["export"] = report.model_dump(mode="json")
    return report


def _measured(trained: Recommender, smaller: Recommender, weights: Weights, part: Part) -> ExportReport:
    select_by = trained.recipe.select_by
    both = [
        _contender(recommender.evaluate_with_ranks(part=part, name=name))
        for name, recommender in ((_TRAINED, trained), (weights, smaller))
    ]
    comparison = compare_ranks(both, list(dict.fromkeys([select_by, *METRICS])), reference=_TRAINED)
    before, after = (row.value.mean for row in comparison.tables[0].rows)
    runs, models = (trained.run, smaller.run), (trained.model, smaller.model)
    parts = ("recipe", "dataset", "best", "table")
    sizes = {
        "weights_on_disk": [sum(file.stat().st_size for file in run.best.glob("*.safetensors")) for run in runs],
        "run_on_disk": [sum(_bytes_in(getattr(run, name)) for name in parts) for run in runs],
        "in_memory": [sum(value.nbytes for value in model.state_dict().values()) for model in models],
    }
    return ExportReport(
        weights=weights,
        checkpoint=artifacts.read_manifest(trained.run.best, "checkpoint").fingerprint,
        **{name: Size(before=first, after=second) for name, (first, second) in sizes.items()},
        select_by=select_by,
        loss=(before - after) / before if before else 0.0,
        comparison=comparison,
    )


def _contender(evaluated: Evaluated) -> Contender:
    result = evaluated.result
    return Contender(result.name, result.protocol, result.facts, evaluated.targets, evaluated.ranks)


def _bytes_in(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _means(report: ExportReport) -> str:
    before, after = (row.value.mean for row in report.comparison.tables[0].rows)
    return f"{before:.4f} → {after:.4f}"
