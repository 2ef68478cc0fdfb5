"""A hook of mkdocs: what the pages link to outside docs/ becomes part of the site, under beyond/."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files, and those that lie beside a page of results."""
    root = Path(config.config_file_path).parent
    for page in list(files.documentation_pages()):
        for path in OUTSIDE.findall(page.content_string):
            found = [root / path]
            if path.endswith(".md"):
                found += [root / Path(path).parent / name for name in _pictures(root / path)]
            for each in found:
                uri = f"beyond/{each.relative_to(root)}"
                if each.is_file() and uri not in files.src_uris:
                    files.append(File.generated(config, uri, abs_src_path=str(each)))
    return files


def on_page_markdown(markdown: str, page, **_: object) -> str:
    """Point the links there, and those of the changelog back."""
    if page.file.src_uri.startswith("beyond/"):
        return markdown.replace("](docs/", "](../")
    return OUTSIDE.sub(r"](beyond/\1", markdown)


def _pictures(page: Path) -> list[str]:
    return re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")) if page.is_file() else []
