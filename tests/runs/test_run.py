from pathlib import Path

import pytest

from hllm.runs.run import Run


def test_results_of_the_test_part_have_plain_names_and_those_of_the_validation_part_a_suffix():
    run = Run(Path("demo"))
    assert run.result_path("evaluation", "test") == Path("demo/evaluation.json")
    assert run.result_path("cold-start", "validation") == Path("demo/cold-start-validation.json")
    assert run.ranks_path("test") == Path("demo/ranks-test.parquet")


@pytest.mark.parametrize("given", [".", "../{name}", "./"])
def test_a_run_is_named_after_its_directory_however_it_is_given(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    assert Run(Path(given.format(name=tmp_path.name))).name == tmp_path.name
