"""hllm data describe."""

import json
import re
from html.parser import HTMLParser

import pytest

from hllm.data.describing.description import Description
from hllm.reports.description import describe_section
from tests.conftest import recipe_values


@pytest.fixture
def folder(tmp_path, monkeypatch, interactions, items):
    """A folder with the tiny world's two files, CSV and Parquet."""
    monkeypatch.setenv("HLLM_HOME", str(tmp_path / "home"))
    interactions.write_csv(tmp_path / "interactions.csv")
    items.write_parquet(tmp_path / "items.parquet")
    return tmp_path


def test_a_folder_is_described_in_a_readable_table(hllm, folder):
    before = sorted(folder.rglob("*"))
    code, out, err = hllm("data", "describe", folder)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    # 12 users with 6 to 17 interactions; items i25 to i29 belong to nobody, and i0 … i24 make the pairs.
    assert "users 12, ids: words (type String)" in lines
    assert "items 30, ids: words (type String)" in lines
    assert "interactions 138" in lines
    assert "density 38.3 % of all pairs of a user and an item" in lines
    assert "interactions of a user 6 8.8 11.5 11.5 14.2 15.9 16.9 17" in lines
    assert "interactions timestamp String time 100 %" in lines
    assert "0 of 138 interactions name items that the items table lacks" in lines
    assert any(re.fullmatch(r"- 5 of 30 items have no interaction\..*", line) for line in lines)
    assert max(map(len, out.splitlines())) <= 120
    assert sorted(folder.rglob("*")) == before, "nothing is written"


def test_json_is_the_description(hllm, folder):
    code, out, _ = hllm("data", "describe", folder, "--json")
    described = Description.model_validate_json(out)
    assert code == 0
    assert (described.num_users, described.popularity.never, described.tokens) == (12, 5, None)


def test_files_with_columns_of_other_names(hllm, folder, interactions):
    interactions.rename({"user_id": "visitor", "timestamp": "when"}).write_csv(folder / "clicks.tsv", separator="\t")
    code, out, _ = hllm(
        "data", "describe", "--interactions", folder / "clicks.tsv", "--items", folder / "items.parquet",
        "--user-col", "visitor", "--time-col", "when", "--time-unit", "none", "--text-cols", "kind", "--json",
    )  # fmt: skip
    values = json.loads(out)
    assert code == 0
    assert [c["role"] for c in values["interaction_columns"]] == ["user", "item", "time"]
    assert (values["texts"]["columns"], values["times"]["kind"]) == (["kind"], "order")


def test_a_tokenizer_counts_the_texts(hllm, folder, tiny_bert):
    code, out, _ = hllm("data", "describe", folder, "--tokenizer", tiny_bert, "--max-length", "10")
    # "title: red red kind: hat", with [CLS] and [SEP]: 9 tokens; the ten items from i10 on have one word more, the
    # last ten two.
    assert code == 0
    assert "cut at 10 tokens" in out
    lines = [line.split() for line in out.splitlines()]
    assert next(line[4:] for line in lines if line[:4] == ["tokens", "of", "a", "text"])[:3] == ["9", "9", "10"]
    assert "33.3 %, which loses 3.33 % of all tokens" in out


def test_a_recipe_brings_its_split_prompt_and_tokenizer(hllm, folder, tiny_llama, tiny_bert):
    values = recipe_values(tiny_bert, tiny_llama)
    values["data"] = {"interactions": "interactions.csv", "items": "items.parquet", "text_cols": ["title"]}
    values["split"] = {"kind": "temporal"}
    values["model"]["item"]["prompt"] = {"field_names": False, "max_tokens": 5}
    (folder / "recipe.json").write_text(json.dumps(values))
    code, out, _ = hllm("data", "describe", "--recipe", folder / "recipe.json", "--json")
    described = json.loads(out)
    assert code == 0
    assert (described["split"]["kind"], described["split"]["leak_share"]) == ("temporal", 0)
    assert described["tokens"]["max_length"] == 5
    assert described["texts"]["first"][0]["text"] == "red red"


@pytest.mark.filterwarnings("always")
def test_a_recipe_whose_model_is_not_here_is_described_without_tokens(hllm, folder, tiny_llama):
    values = recipe_values(tiny_llama, tiny_llama)
    values["data"] = {"interactions": "interactions.csv", "items": "items.parquet"}
    values["model"]["item"]["backbone"] = "minilm-l6"
    (folder / "recipe.json").write_text(json.dumps(values))
    code, out, err = hllm("data", "describe", "--recipe", folder / "recipe.json", "--json")
    assert code == 0
    assert "warning: no token lengths: minilm-l6 is not on this machine yet: hllm model fetch minilm-l6" in err
    assert json.loads(out)["tokens"] is None


def test_a_run_is_described_from_what_it_kept(hllm, trained_folder, trained):
    code, out, _ = hllm("data", "describe", "--run", trained_folder, "--json")
    described = json.loads(out)
    assert code == 0
    assert described["num_interactions"] == trained.dataset.num_interactions
    assert described["tokens"]["max_length"] == 64
    assert described["faults"] == []
    assert described["split"]["kind"] == "leave-one-out"


class Page(HTMLParser):
    """Every tag is closed, and the pictures and links are known."""

    def __init__(self, content):
        super().__init__()
        self.open, self.images, self.links = [], [], []
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values[key] for key in ("src", "href") if key in values]
        if tag == "img":
            self.images.append(values["alt"])
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_shows_the_histograms(hllm, folder, items, tiny_bert):
    items.with_columns(kind=items["kind"] + "<b>").write_parquet(folder / "items.parquet")
    code, out, _ = hllm("data", "describe", folder, "--html", folder / "data.html", "--tokenizer", tiny_bert)
    assert code == 0
    assert out.splitlines()[-1] == str(folder / "data.html")
    content = (folder / "data.html").read_text()
    page = Page(content)
    titles = [alt.split(".")[0] for alt in page.images]
    assert [title.split(" (")[0] for title in titles] == [
        "Users by their number of interactions",
        "Items by their number of interactions",
        "Item texts by their number of tokens",
        "Interactions over time, by the first day of each period",
    ]
    assert all(link.startswith(("data:image/png", "#")) for link in page.links)
    assert "hat&lt;b&gt;" in content
    assert "<b>" not in content


def test_the_section_alone_can_stand_in_another_page(hllm, folder):
    _, out, _ = hllm("data", "describe", folder, "--json")
    section = describe_section(Description.model_validate_json(out))
    assert len(Page(section).images) == 3, "no tokens without a tokenizer"
    assert "<h3>To know before training</h3>" in section
    assert not re.search("<h[12]", section)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ConfigError: give one of: a data set's name or folder"),
        (["movielens-100k", "--run", "x"], "ConfigError: give one of: a data set's name or folder"),
        (["movielens-100"], "ConfigError: data.source 'movielens-100' is unknown (did you mean 'movielens-100k'?)"),
        (["movielens-100k"], "ConfigError: movielens-100k is not on this machine yet: hllm data fetch movielens-100k"),
        (["--items", "items.csv"], "ConfigError: --items go with --interactions; give both"),
        (["--interactions", "no.csv", "--items", "no.csv"], "DataError: interactions: there is no file"),
        (["FOLDER/home"], "should hold one file interactions, such as interactions.parquet or interactions.csv, found none; name it with"),
        (["FOLDER", "--user-col", "user"], "interactions have no column 'user' (did you mean 'user_id'?)"),
        (["FOLDER", "--time-unit", "h"], "ConfigError: options: 'time_unit'"),
        (["FOLDER", "--max-length", "9"], "ConfigError: --max-length counts tokens: name a model with --tokenizer"),
        (["FOLDER", "--max-length", "0", "--tokenizer", "x"], "Invalid value for '--max-length'"),
        (["FOLDER", "--tokenizer", "minilm"], "ConfigError: backbone 'minilm' is neither a known model"),
        (["--run", "FOLDER"], "CheckpointError: FOLDER is not a run"),
        (["--run", "FOLDER", "--user-col", "u"], "ConfigError: a run's columns cannot be chosen again: leave out --user-col"),
        (["--recipe", "FOLDER/no.toml"], "ConfigError: there is no recipe"),
    ],
)  # fmt: skip
def test_wrong_input_exits_with_2_and_one_sentence(hllm, folder, arguments, message):
    (folder / "home").mkdir()
    code, out, err = hllm("data", "describe", *(str(a).replace("FOLDER", str(folder)) for a in arguments))
    assert code == 2
    assert out == ""
    assert message.replace("FOLDER", str(folder)) in err
    assert "Traceback" not in err


def test_help_teaches(hllm):
    code, out, _ = hllm("data", "describe", "--help")
    assert code == 0
    for taught in ("hllm data describe movielens-100k", "--interactions", "--tokenizer", "--html", "no clock"):
        assert taught in " ".join(out.split())
