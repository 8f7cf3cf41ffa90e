"""Ablations of a finished run are made and kept in its directory."""

# Proved by tests/evaluation/test_ablations.py.

from collections.abc import Sequence

import torch

from hllm.data.prompt import render
from hllm.evaluation.ablations import Ablations, TextReader, ablate, check_switches
from hllm.evaluation.evaluate import Part
from hllm.evaluation.protocol import require_query_per_target
from hllm.retrieval.exact import ExactRetriever
from hllm.runs.bundle import Bundle, open_run
from hllm.runs.measure import evaluate_run
from hllm.runs.results import read_ablations, write_result
from hllm.runs.run import Run


def ablate_run(run: Run, switches: Sequence[str] | None = None, *, part: Part = "test") -> Ablations:
    """Measure what each of `switches` (None: all) costs; keep the results beside those of other switches."""
    earlier = read_ablations(run, part)  # first: it may be damaged, and the work is long
    ablations = ablate_bundle(open_run(run), switches, part=part, name=run.name)
    write_result(run, "ablations", part, ablations if earlier is None else ablations.joined_to(earlier))
    return ablations


def ablate_bundle(
    bundle: Bundle, switches: Sequence[str] | None = None, *, part: Part = "test", name: str = "model"
) -> Ablations:
    """Evaluate a bundle again with each switch thrown; nothing is trained.

    `switches` are names such as "shuffled-order" and "shuffled-text" (None: all); see `evaluation.ablations`.
    """
    require_query_per_target(bundle.recipe.evaluation, purpose="an ablation")
    prompt = bundle.recipe.model.item.text_prompt
    texts = None if prompt is None else TextReader(prompt, lambda texts: with_texts(bundle, texts))
    check_switches(switches, bundle.dataset, texts)  # before the work
    return ablate(
        evaluate_run(bundle, part=part, name=name).result, bundle.exact, bundle.dataset, bundle.split,
        switches=switches, max_history=bundle.recipe.model.max_history, texts=texts,
    )  # fmt: skip


def with_texts(bundle: Bundle, texts: Sequence[str]) -> ExactRetriever:
    """Return the bundle's exact search with other texts, one for each item; only texts that no item had are encoded."""
    reader, scorer = bundle.reader, bundle.scorer
    rendered = render(bundle.dataset.items, bundle.dataset.text_cols, reader.prompt)
    vectors = dict(zip(rendered, scorer.table, strict=True))
    new = sorted(set(texts) - set(rendered))
    if new:
        vectors |= dict(zip(new, reader.read_many(new), strict=True))
    return ExactRetriever(scorer.over(torch.stack([vectors[text] for text in texts]), dim=scorer.dim))
