"""Let the site hold files outside docs/: MkDocs calls these functions when it builds (mkdocs.yml, `hooks`).

A link such as `../recipes/demo.toml` works in the repository. The site has no folder above docs/. So these files are
copied into it, and the links are made anew for their new place.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
COPIED = (
    "CONTRIBUTING.md", "CHANGELOG.md", "recipes/**/*.toml", "examples/*.*", "benchmarks/notes/*.md", "systems/*/*.*",
)  # fmt: skip
LINK = re.compile(r"\]\((?![a-z]+:|#|/)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the files that pages link to outside docs/."""
    for path in sorted(path for pattern in COPIED for path in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point each relative link to its target's place in the site: that in the repository, without docs/."""
    in_site = page.file.src_uri
    in_repository = in_site if any(Path(in_site).match(pattern) for pattern in COPIED) else f"docs/{in_site}"

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), link[1]))
        return "](" + posixpath.relpath(target.removeprefix("docs/"), posixpath.dirname(in_site) or ".")

    return LINK.sub(moved, markdown)
