import re

import pytest


@pytest.mark.parametrize("question", [("--item", "i7"), ("--text", "title: red hat")])
def test_similar(hllm, trained_folder, question):
    code, out, _ = hllm("similar", "--run", trained_folder, *question, "-k", "2")
    assert code == 0
    assert len([line for line in out.splitlines() if re.match(r"\s+\d", line)]) == 2
