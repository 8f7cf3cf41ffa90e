"""Ablations of a finished run, kept in its directory."""

from collections.abc import Sequence

from hllm.api import Recommender
from hllm.evaluation.ablations import Ablations
from hllm.evaluation.evaluate import Part
from hllm.runs.results import read_ablations, write_result
from hllm.runs.run import Run


def ablate_run(run: Run, switches: Sequence[str] | None = None, *, part: Part = "test") -> Ablations:
    """Measure what each of `switches` (None: all) costs; keep the results beside those of other switches."""
    ablations = Recommender.load(run.folder).ablate(switches, part=part, name=run.name)
    earlier = read_ablations(run, part)
    write_result(run, "ablations", part, ablations if earlier is None else ablations.joined_to(earlier))
    return ablations
