"""A trained run becomes a smaller one, with its weights in bf16 or int8, and what that costs is measured."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from hllm import artifacts
from hllm.api import Recommender
from hllm.config import Config
from hllm.errors import ConfigError, DataError
from hllm.evaluation.compare import Comparison, compare_ranks
from hllm.evaluation.evaluate import Evaluated, Part
from hllm.evaluation.impressions import RankingResult
from hllm.evaluation.ranks import Contender
from hllm.jobs.evaluate_ranking import evaluate_rankers
from hllm.locks import locked
from hllm.metrics import RANKING_METRICS
from hllm.models.checkpoint import compact_checkpoint
from hllm.models.compact import Weights
from hllm.reports.ranking import ranking_table
from hllm.reports.results import FORMATS
from hllm.runs.measure import evaluate_run
from hllm.runs.run import Run
from hllm.runs.tables import embed_run_items

METRICS = ("ndcg@10", "recall@10", "recall@50")
_TRAINED = "fp32"


class SizeChange(Config):
    """A size in bytes, before and after."""

    before: int
    after: int

    def __str__(self) -> str:
        """Return both in MB, and the share that is left."""
        return f"{self.before / 1e6:,.1f} MB → {self.after / 1e6:,.1f} MB ({self.after / max(1, self.before):.0%})"


class ExportReport(Config):
    """The report of an export: its manifest keeps it under "export"."""

    weights: Weights
    """The number format of both tiers' weights; norms, biases and [ITEM] vectors are in fp32."""
    checkpoint: str
    """Fingerprint of the checkpoint that was exported."""
    weights_on_disk: SizeChange
    """The files of both tiers' weights, scales included."""
    run_on_disk: SizeChange
    """The run without its checkpoints to resume from: weights, tokenizer, dataset, item vectors."""
    in_memory: SizeChange
    """Weights of the loaded model. Loading brings them back to fp32, so that memory is as before."""
    select_by: str
    """The metric that the run was selected by."""
    selected_by: tuple[float, float]
    """Its values before and after; of several targets of a ranker, their mean."""
    loss: float
    """Share of `select_by` that the export loses; below 0 where it gains."""
    comparison: Comparison | None
    """Both on the same targets, with intervals and paired tests. None for DIN, which does not retrieve."""
    ranking: tuple[RankingResult, ...] = ()
    """Both on the same candidates, with intervals, for a model with heads."""

    def __str__(self) -> str:
        """Return the tables and a paragraph for people."""
        tables = [FORMATS["text"](self.comparison)] if self.comparison is not None else []
        tables += [ranking_table(self.ranking)] if self.ranking else []
        return (
            "\n\n".join(tables)
            + f"\n\nweights on disk {self.weights_on_disk}; with dataset and item vectors {self.run_on_disk}; "
            f"in memory {self.in_memory}\n"
            f"loses {self.loss:+.2%} of {self.select_by}"
        )


def export_model(
    run: Path, out: Path, weights: Weights, *, part: Part = "validation", max_loss: float | None = None
) -> ExportReport:
    """Write the run at `run` to `out` with its weights in `weights`, whole or not at all, and return what it cost.

    `out` is a run that can be evaluated, embedded and recommended from, but not trained: it holds the recipe, the
    dataset, the checkpoint and item vectors made by that checkpoint. Both are evaluated on `part`, with heads by its
    candidates too. LoRA additions become part of the weights. Raises ConfigError if `out` exists, if `run` is an
    export, and if the export loses more than the share `max_loss` of the run's select_by, DataError if `part` has no
    value of it; nothing is written then.
    """
    with locked(out):
        if out.exists():
            raise ConfigError(f"{out} exists already; give a new directory")
        return _export_model(run, out, weights, part, max_loss)


def _export_model(run: Path, out: Path, weights: Weights, part: Part, max_loss: float | None) -> ExportReport:
    trained = Recommender.load(run)
    before = _measured(_TRAINED, trained, part)  # first: what cannot be measured is refused before any work
    details: dict[str, object] = {}
    with artifacts.writing(out, "run", details) as folder:
        smaller = Run(folder)
        compact_checkpoint(trained.run.best_path, smaller.best_path, weights)
        for path in (trained.run.recipe_path, trained.run.metrics_path):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        shutil.copytree(trained.run.dataset_path, smaller.dataset_path)
        embed_run_items(smaller, smaller.table_path)
        export = Recommender.load(folder)
        report = _report(weights, (trained, export), (before, _measured(weights, export, part)))
        if max_loss is not None and report.loss > max_loss:
            raise ConfigError(
                f"in {weights} the model loses {report.loss:.2%} of {report.select_by} on the {part} part "
                f"({report.selected_by[0]:.4f} → {report.selected_by[1]:.4f}), more than the {max_loss:.2%} allowed; "
                "nothing was written. Take bf16, or allow more with --max-loss"
            )
        details["export"] = report.model_dump(mode="json")
    return report


@dataclass(frozen=True)
class _Measured:
    retrieval: Evaluated | None
    """None for DIN."""
    ranking: RankingResult | None
    """None for a model without heads."""


def _measured(name: str, recommender: Recommender, part: Part) -> _Measured:
    """Evaluate what the model can do. Raises DataError if the part has no value of the metric it was selected by."""
    model, select_by = recommender.recipe.model, recommender.recipe.select_by
    retrieval = evaluate_run(recommender.bundle, part=part, name=name) if model.user.facts.retrieves else None
    ranking = evaluate_rankers({name: recommender}, part=part)[0] if model.ranking is not None else None
    if ranking is not None and select_by in RANKING_METRICS:
        for target, result in ranking.targets.items():
            if select_by not in result.metrics:
                raise DataError(
                    f"target {target!r} has no {select_by} on the {part} part, by which the run was selected: no user "
                    "has impressions of both kinds there; measure on another --part"
                )
    return _Measured(retrieval, ranking)


def _report(
    weights: Weights, both: tuple[Recommender, Recommender], measured: tuple[_Measured, _Measured]
) -> ExportReport:
    trained, smaller = both
    select_by = trained.recipe.select_by
    ranking = tuple(each.ranking for each in measured if each.ranking is not None)
    retrieval = [_contender(each.retrieval) for each in measured if each.retrieval is not None]
    shown = [name for name in dict.fromkeys([select_by, *METRICS]) if name not in RANKING_METRICS]
    comparison = compare_ranks(retrieval, shown, reference=_TRAINED) if retrieval else None
    if select_by in RANKING_METRICS:
        before, after = (fmean(target.metrics[select_by].mean for target in each.targets.values()) for each in ranking)
    else:
        assert comparison is not None, "DIN is selected by candidates"
        before, after = (row.value.mean for row in comparison.tables[0].rows)
    runs, models = (trained.run, smaller.run), (trained.model, smaller.model)
    parts = ("recipe_path", "dataset_path", "best_path", "table_path")
    sizes = {
        "weights_on_disk": [sum(file.stat().st_size for file in run.best_path.glob("*.safetensors")) for run in runs],
        "run_on_disk": [sum(_bytes_in(getattr(run, name)) for name in parts) for run in runs],
        "in_memory": [sum(value.nbytes for value in model.state_dict().values()) for model in models],
    }
    return ExportReport(
        weights=weights,
        checkpoint=artifacts.read_manifest(trained.run.best_path, "checkpoint").fingerprint,
        **{name: SizeChange(before=first, after=second) for name, (first, second) in sizes.items()},
        select_by=select_by,
        selected_by=(before, after),
        loss=(before - after) / before if before else 0.0,
        comparison=comparison,
        ranking=ranking,
    )


def _contender(evaluated: Evaluated) -> Contender:
    result = evaluated.result
    return Contender(result.name, result.protocol, result.facts, evaluated.targets, evaluated.ranks)


def _bytes_in(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
