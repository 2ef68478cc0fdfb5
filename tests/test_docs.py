"""The documentation is true: its Python runs, its links lead somewhere, its command lines exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

import tlxml_fast as tlx
from tlxml_fast.cli import app
from tlxml_fast.errors import TlxError

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md"]
COMMANDS = {
    name: {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
    | {"--help"}
    for name, command in typer.main.get_command(app).commands.items()
}


def title(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, *languages: str) -> list[tuple[int, str]]:
    """The fenced blocks of a page in the given languages: the line each begins at, and its text."""
    text = path.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    return [(text.count("\n", 0, m.start()) + 2, m[2]) for m in found if m[1] in languages]


def prose(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(path: Path) -> set[str]:
    """What a fragment may name: headings in lower case, punctuation dropped, spaces as hyphens."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with what the pages take a reader to have: photos/ and omniglot.npz."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog", "owl"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(rng.integers(256, size=(40, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    classes = [
        f"images_{part}/Alphabet/character{i:02d}" for part in ("background", "evaluation") for i in range(3)
    ]
    labels = np.repeat(np.arange(len(classes)), 3)
    images = rng.integers(256, size=(len(labels), 28, 28), dtype=np.uint8)
    np.savez("omniglot.npz", x=images, y=labels, classes=np.array(classes))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=title)
def test_python_runs(page: Path, desk: None) -> None:
    namespace: dict[str, object] = {"__name__": "page"}
    for line, code in blocks(page, "python"):
        # blank lines in front, so that a traceback names the page's own line
        exec(compile("\n" * (line - 1) + code, str(page), "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("page", TEXTS, ids=title)
def test_relative_links_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page)) + re.findall(
        r"(?:src|href)=\"([^\"]+)\"", prose(page)
    )
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if fragment:
            assert fragment in anchors(target), link


@pytest.mark.parametrize("page", TEXTS, ids=title)
def test_command_lines_exist(page: Path) -> None:
    shell = "\n".join(code for _, code in blocks(page, "sh", "bash", "console", ""))
    inline = [span for span in re.findall(r"`([^`\n]+)`", prose(page)) if "tlxml-fast" in span]
    for line in [*shell.replace("\\\n", " ").splitlines(), *inline]:
        _, called, arguments = line.partition("tlxml-fast ")
        words = shlex.split(arguments, comments=True) if called else []
        if not words or words == ["--help"]:
            continue
        assert words[0] in COMMANDS, line
        for word in words[1:]:
            if word.startswith("-"):
                assert word.partition("=")[0] in COMMANDS[words[0]], line


@pytest.mark.parametrize("page", TEXTS, ids=title)
def test_named_options_exist(page: Path) -> None:
    """An option in a section headed by a command is that command's; elsewhere it is some command's."""
    for section in re.split(r"^(?=#+ )", prose(page), flags=re.M):
        command = re.match(r"#+ .*`tlxml-fast (\w+)`", section)
        allowed = COMMANDS[command[1]] if command else set().union(*COMMANDS.values())
        for option in re.findall(r"`(--[\w-]+)[^`\n]*`", section):
            assert option in allowed, f"{option} in {section.splitlines()[0]!r}"


def test_the_quickstart_names_every_option() -> None:
    sections = re.split(r"^(?=#+ )", prose(ROOT / "docs" / "quickstart.md"), flags=re.M)
    for name, options in COMMANDS.items():
        section = next(s for s in sections if re.match(rf"#+ .*`tlxml-fast {name}`", s))
        missing = {option for option in options - {"--help"} if f"`{option}`" not in section}
        assert not missing, name


def test_the_reference_names_every_public_name() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: tlxml_fast\.(\w+)$", text, re.M))
    errors = {
        name
        for name in tlx.__all__
        if isinstance(getattr(tlx, name), type) and issubclass(getattr(tlx, name), (TlxError, Warning))
    }
    assert named - set(tlx.__all__) == {"backend", "interop", "errors"}
    assert set(tlx.__all__) - named == errors | {"Compression", "Learner"}  # abstract classes


def test_the_reference_has_what_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools" / "docs")
    from index import indexed

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert indexed(text) == text, "python tools/docs/index.py writes it anew"


@pytest.mark.parametrize(
    ("docstring", "markdown"),
    [
        ("One.", "One."),
        (
            "Of:\n\na   first,\n    and more\nbb  second\nThen.",
            "Of:\n\n\n- `a` — first,\n    and more\n- `bb` — second\n\nThen.",
        ),
        ("A  B\n\n    x = 1\nEnd.", "\n- `A` — B\n\n    x = 1\nEnd."),
    ],
)
def test_definitions_become_lists(docstring: str, markdown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("griffe")
    monkeypatch.syspath_prepend(ROOT / "tools" / "docs")
    from definitions import as_markdown

    assert as_markdown(docstring) == markdown
