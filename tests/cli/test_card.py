import json
import re

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
