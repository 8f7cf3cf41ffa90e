import subprocess
import sys

import pytest

import hllm

LIGHT = "import sys; {}; heavy = {{'torch', 'transformers', 'polars', 'pydantic'}} & set(sys.modules); assert not heavy, heavy"


@pytest.mark.reliability("imports")
@pytest.mark.parametrize("statement", ["import hllm", "import hllm.cli.main"])
def test_importing_is_light(statement):
    subprocess.run([sys.executable, "-c", LIGHT.format(statement)], check=True)


@pytest.mark.reliability("imports")
def test_help_is_a_table_of_contents_and_does_not_import_torch():
    code = (
        "import sys\n"
        "from hllm.cli.main import main\n"
        "code = main(['--help'])\n"
        "assert not {'torch', 'transformers', 'polars'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    for verb in ("data", "model", "train", "tune", "evaluate", "report", "recommend", "similar", "import-checkpoint"):
        assert verb in done.stdout


def test_public_names_are_found_and_unknown_ones_are_not():
    for name in hllm.__all__:
        assert getattr(hllm, name)
    with pytest.raises(AttributeError, match="no attribute 'Recomender'"):
        _ = hllm.Recomender
