import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_page_of_settings_is_current(generate):
    assert generate.TARGET.read_text() == generate.settings(), "run: python docs/generate.py"
    assert "learning_rate" in generate.settings()


def test_the_page_of_recipes_is_current(generate):
    assert generate.RECIPES_TARGET.read_text() == generate.recipes(), "run: python docs/generate.py"
    assert "**baichuan2-7b**" in generate.recipes()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
