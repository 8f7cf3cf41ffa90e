import json
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from hllm.jobs.card import card_facts
from hllm.reports.model_card import model_card
from hllm.runs.results import read_evaluation


def stored(run, name):
    return json.loads((run / name).read_text())


def test_a_card_needs_an_evaluation_of_this_run(hllm, run):
    code, _, err = hllm("card", "--run", run)
    assert code == 2
    assert re.search(r"has no evaluation.json; make it with hllm evaluate --run \S+mine", err)
    assert hllm("evaluate", "--run", run, "--baselines", "")[0] == 0
    run.rename(run.with_name("other"))
    code, _, err = hllm("card", "--run", run.with_name("other"))
    assert code == 2
    assert "evaluation.json is not of this run; make it again with hllm evaluate" in err


def test_the_card_has_the_numbers_of_the_evaluation(hllm, run):
    assert hllm("evaluate", "--run", run)[0] == 0
    assert hllm("ablate", "--run", run, "--only", "shuffled-order,title-only")[0] == 0
    code, out, err = hllm("card", "--run", run)
    assert (code, out.strip(), err) == (0, str(run / "README.md"), "")
    text = (run / "README.md").read_text()
    own = next(result for result in stored(run, "evaluation.json") if result["name"] == "mine")

    front = yaml.safe_load(text.split("---\n")[1])
    assert "license" not in front, "it is the user's to choose"
    (model,) = front["model-index"]
    (results,) = model["results"]
    assert model["name"] == "mine"
    assert {m["type"]: m["value"] for m in results["metrics"]} == {k: v["mean"] for k, v in own["all_items"].items()}
    assert {m["type"]: (m["args"]["low"], m["args"]["high"]) for m in results["metrics"]} == {
        k: (v["low"], v["high"]) for k, v in own["all_items"].items()
    }
    # Hugging Face's own reader finds the same numbers.
    card = ModelCard.load(run / "README.md")
    assert {r.metric_type: r.metric_value for r in card.data.eval_results} == {
        k: v["mean"] for k, v in own["all_items"].items()
    }
    evaluation, ablations = text.split("## Evaluation")[1].split("## Ablations")
    assert "| popularity | co-occurrence | markov | mine |" in evaluation
    mean = own["all_items"]["ndcg@10"]["mean"]
    assert re.search(rf"^\| ndcg@10 \|.* \| {mean:.4f} \[[\d., ]+\] \|$", evaluation, re.MULTILINE)
    drop = stored(run, "ablations.json")["results"][0]["drop"]["ndcg@10"]
    shuffled = next(line for line in ablations.splitlines() if line.startswith("| shuffled-order |"))
    assert f"{drop['mean']:.4f} [{drop['low']:.4f}, {drop['high']:.4f}]" in shuffled
    assert "12 users, 30 items" in text
    assert str(run.parent) not in text, "no paths of this machine"


def test_the_program_in_the_card_runs(hllm, run, monkeypatch, capsys):
    assert hllm("evaluate", "--run", run, "--baselines", "")[0] == 0
    assert hllm("card", "--run", run, "--out", run.parent / "CARD.md")[0] == 0
    program = re.search(r"```python\n(.*?)```", (run.parent / "CARD.md").read_text(), re.DOTALL).group(1)
    monkeypatch.chdir(run)
    exec(program, {})
    printed = capsys.readouterr().out
    shapes = [printed.count(f"shape: (10, {columns})") for columns in (5, 4)]
    assert shapes == [2, 1], "recommend twice, similar"


def test_names_and_titles_cannot_break_the_card(hllm, run, trained, monkeypatch):
    assert hllm("evaluate", "--run", run, "--baselines", "")[0] == 0
    recommender = type(trained).load(run)
    facts = card_facts(recommender)
    nasty = 'a | b: "c"\n---\n<b>d</b>'
    recipe = {**facts.recipe, "about": nasty, "data": {**facts.recipe["data"], "source": nasty}}
    odd = type(facts)(**{**vars(facts), "name": nasty, "recipe": recipe, "others": read_evaluation(recommender.run)})
    text = model_card(odd, trained.dataset, trained.split)
    front = yaml.safe_load(text[: text.index("\n---\n\n#")].removeprefix("---\n"))
    assert front["model-index"][0]["name"] == nasty
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == nasty
    assert "<b>" not in text.split("\n---\n\n#")[1]
    assert r"a \| b" in text


def test_a_card_of_another_model_or_of_damaged_numbers_is_refused(hllm, run, trained, id_recipe, interactions, items):
    """A new model trained into the old one's directory had a card with the old one's numbers."""
    assert hllm("evaluate", "--run", run, "--baselines", "popularity")[0] == 0
    whole = (run / "evaluation.json").read_text()
    mean = repr(next(r for r in stored(run, "evaluation.json") if r["name"] == "mine")["all_items"]["ndcg@10"]["mean"])
    (run / "evaluation.json").write_text(whole.replace(f'"mean": {mean}', f'"mean": {mean.replace(".", ".9")}'))
    code, out, err = hllm("card", "--run", run)
    assert (code, out) == (2, "")
    assert re.search(r"evaluation\.json is damaged: .*; make it again with hllm evaluate --run \S+mine", err)
    assert not (run / "README.md").exists()

    (run / "evaluation.json").write_text(whole)
    shutil.rmtree(run / "checkpoints")
    type(trained).fit(interactions, items, recipe=id_recipe, out=run)
    code, out, err = hllm("card", "--run", run)
    assert (code, out) == (2, "")
    assert "evaluation.json is not of this run; make it again with hllm evaluate" in err
    assert hllm("evaluate", "--run", run, "--baselines", "")[0] == 0
    assert hllm("card", "--run", run)[0] == 0


@pytest.mark.filterwarnings("default::hllm.errors.HllmWarning")
def test_the_log_of_another_run_is_left_out_of_report_and_card(hllm, run, trained, id_recipe, interactions, items):
    """The page drew the curves of whatever metrics.jsonl lay in the run."""
    other = type(trained).fit(interactions, items, recipe=id_recipe, out=run.parent / "other").run
    shutil.copyfile(other.metrics_path, run / "metrics.jsonl")
    code, _, err = hllm("evaluate", "--run", run, "--baselines", "", "--report")
    assert code == 0, err
    assert "damaged or of another run, and left out" in err
    assert "steps in" not in (run / "report.html").read_text()
    assert stored(run, "evaluation.json")[0]["facts"]["epochs"] == 0


@pytest.mark.filterwarnings("default::hllm.errors.HllmWarning")
def test_damaged_logs_do_not_stop_an_evaluation_or_a_report(hllm, run):
    assert hllm("evaluate", "--run", run, "--baselines", "")[0] == 0
    with (run / "evaluations.jsonl").open("a") as file:
        file.write('{"at": "20')
    (run / "metrics.jsonl").write_bytes(b"\xff" + (run / "metrics.jsonl").read_bytes())
    code, _, err = hllm("evaluate", "--run", run, "--baselines", "")
    assert code == 0
    assert re.search(r"metrics\.jsonl: line 1 is damaged or of another run, and left out", err)
    code, _, err = hllm("ablate", "--run", run, "--only", "last-item")
    assert code == 0
    assert re.search(r"evaluations\.jsonl: line 2 is damaged .*, and moved to evaluations\.jsonl\.damaged", err)
    code, _, err = hllm("report", "--run", run, "--baselines", "")
    assert code == 0
    assert "evaluations.jsonl" not in err, "said once"
    assert stored(run, "evaluation.json")[0]["facts"]["test_evaluations"] == 2
