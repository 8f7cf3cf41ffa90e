"""The job that deletes systems, as far as it takes a second; all of it is `python tests/deletion.py`."""

import runpy
import shutil

import pytest

from tests.deletion import ROOT, copy_without, deletions

SYSTEMS = [deletion for deletion in deletions() if deletion.name.startswith("systems/")]


def test_every_folder_of_systems_is_deleted_in_turn():
    folders = {path.name for path in (ROOT / "systems").iterdir() if path.name[0].isdigit()}
    assert {deletion.name for deletion in SYSTEMS} == {f"systems/{name}" for name in folders}


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="copies what git lists")
@pytest.mark.parametrize("deletion", SYSTEMS[:1], ids=lambda deletion: deletion.name)
def test_a_deleted_system_is_missing_on_the_page_of_coverage(deletion, tmp_path):
    copy_without(deletion, tmp_path)
    assert not (tmp_path / deletion.name).exists()
    assert (tmp_path / "src" / "hllm" / "api.py").is_file()
    before = runpy.run_path(str(ROOT / "docs" / "coverage.py"))["coverage"]()
    after = runpy.run_path(str(tmp_path / "docs" / "coverage.py"))["coverage"]()
    assert before.count("| missing | – |") + 1 == after.count("| missing | – |")
