import json

import polars as pl
import pytest


@pytest.fixture
def tables(tmp_path):
    (tmp_path / "log.csv").write_text("visitor,item_id,timestamp\nu,a,1\nu,zz,2\n,b,3\nv,b,4\n")
    (tmp_path / "items.csv").write_text("item_id,title\na,A\nb,B\n")
    return ["--interactions", tmp_path / "log.csv", "--items", tmp_path / "items.csv", "--user-col", "visitor"]


def test_faults_are_a_table_and_exit_2(hllm, tables):
    code, out, _ = hllm("data", "check", *tables)
    assert code == 2
    lines = [line.split() for line in out.splitlines()]
    assert ["unknown_items", "interactions", "1", "4", "error", "2", "('zz')"] in lines
    assert ["missing_user_ids", "interactions", "1", "4", "error", "3"] in lines
    assert ["duplicate_items", "items", "0", "2", "error", "-"] in lines
    assert ["read", "4", "2", "3"] in lines
    assert ["faults", "2", "2", "2"] in lines
    assert "training would refuse these tables (2 reasons):" in out


def test_what_is_dropped_is_no_refusal(hllm, tables, tmp_path):
    policies = ["--set", "data.unknown_items=drop", "--set", "data.missing_user_ids=drop"]
    code, out, _ = hllm("data", "check", *tables, *policies, "--quarantine", tmp_path / "q", "--json")
    facts = json.loads(out)
    assert (code, facts["refused"]) == (0, [])
    assert facts["steps"][-1] == {"step": "faults", "rows": 2, "users": 2, "items": 2}
    found = pl.read_csv(tmp_path / "q" / "quarantine-interactions.csv")
    assert found.select("fault", "row", "item_id").rows() == [("unknown_items", 2, "zz"), ("missing_user_ids", 3, "b")]


def test_the_effect_of_a_filter_is_shown_and_an_empty_rest_refused(hllm, tables):
    drop = ["--set", "data.unknown_items=drop", "--set", "data.missing_user_ids=drop"]
    code, out, _ = hllm("data", "check", *tables, *drop, "--set", "data.min_user_interactions=2")
    assert code == 2
    assert "k-core: at least 2 interactions a user and 0 an item, applied in 2 rounds" in out
    assert "none of the 2 interactions of 2 users with 2 items is left" in out


def test_a_recipe_says_where_the_tables_are(hllm, tables, tmp_path):
    (tmp_path / "recipe.toml").write_text(
        'about = "x"\n[data]\ninteractions = "log.csv"\nitems = "items.csv"\nuser_col = "visitor"\nunknown_items = "drop"\n'
        '[model.item]\nkind = "id"\n[model.user]\nkind = "sasrec"\ndim = 8\nnum_heads = 1\n[[stages]]\n'
    )
    code, out, _ = hllm("data", "check", "--recipe", tmp_path / "recipe.toml", "--json")
    policies = {(f["table"], f["fault"]): f["policy"] for f in json.loads(out)["faults"]}
    assert code == 2
    assert policies["interactions", "unknown_items"] == "drop"
    assert policies["interactions", "missing_user_ids"] == "error"


def test_tables_must_be_named(hllm):
    code, _, err = hllm("data", "check")
    assert code == 2
    assert (
        "ConfigError: give one of: a folder that hllm data import wrote, --interactions with --items, and --recipe"
        in err
    )
