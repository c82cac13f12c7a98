import importlib.util
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from algorithms.formats import star
from mdcatch.cli import app as mdcatch_app
from schemer.cli import app as schemer_app
from services.cli import app as coldstream_app
from services.kit.errors import Code
from tests import check_sizes

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
SETTING = re.compile(r"\b(?:prep|proc)__\w+")


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Markdown renderers make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    kept = (re.sub(r"[^\w -]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in kept}


def commands(app: typer.Typer, name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command with its options."""
    waiting = [(name, typer.main.get_command(app))]
    while waiting:
        path, command = waiting.pop()
        inner = getattr(command, "commands", None)
        if inner:
            waiting += [(f"{path} {key}", child) for key, child in inner.items()]
            continue
        options = [
            next(name for name in parameter.opts if name.startswith("--"))
            for parameter in command.params
            if parameter.opts and parameter.opts[0].startswith("-")
        ]
        yield path, [option for option in options if option != "--help"]


def test_generated_pages_are_current() -> None:
    generator = load_generator()
    for path, text in generator.pages().items():
        assert path.read_text() == text, f"{path.name}: run python docs/generate.py"


def test_generator_notices_a_code_without_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load_generator()
    monkeypatch.delitem(generator.REFUSALS, "TRUNCATED")
    with pytest.raises(ValueError, match=r"add \['TRUNCATED'\]"):
        generator.pages()


def test_every_code_has_a_line_on_the_page() -> None:
    text = (ROOT / "docs" / "reference" / "refusals.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE) == [code.name for code in Code]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{page.name} links to {target}"
        assert found.is_relative_to(ROOT), f"{page.name} links out of the repository: {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name} links to {target}"


def test_every_page_is_linked_from_somewhere() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in LINK.findall(page.read_text())
    }
    reached = {page for page in PAGES if page in linked or page.parent in linked}
    assert {page.name for page in set(PAGES) - reached} == {"README.md"}


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "commands.md").read_text()
    apps = {"coldstream": coldstream_app, "mdcatch": mdcatch_app, "schemer": schemer_app}
    missing = [
        f"{command} {option}"
        for name, app in apps.items()
        for command, options in commands(app, name)
        for option in ["", *options]
        if command not in text or option not in text
    ]
    assert missing == []


def test_documented_scheme_settings_exist() -> None:
    known = set()
    for scheme in ("prep", "proc", "refine"):
        folder = ROOT / "schemer" / "templates" / scheme
        for table in star.load(folder / "scheme.star").values():
            for label in table.columns:
                if label.endswith("VariableName"):
                    known |= {f"{scheme}__{name}" for name in table.strings(label)}
        for job in folder.glob("*/job.star"):
            options = star.load(job)["joboptions_values"].strings("rlnJobOptionVariable")
            known |= {f"{scheme}__{job.parent.name}__{option}" for option in options}
    named = {name for page in PAGES for name in SETTING.findall(page.read_text())}
    assert named - known == set()
    assert len(named) >= 5


def test_readme_states_the_promise_and_the_two_commands() -> None:
    text = " ".join((ROOT / "README.md").read_text().replace(">", " ").split())
    assert "then after restart no accounted movie is lost and none has its effect twice" in text
    assert "Not promised: survival of the disk that holds the journal" in text
    assert "make demo" in text and "make test" in text


def test_makefile_has_the_targets_and_each_installs_first() -> None:
    text = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "test-all", "bench", "lint"):
        assert re.search(rf"^{target}: install$", text, flags=re.MULTILINE), target
    for script in (".ci/run", ".ci/find-python"):
        assert (ROOT / script).stat().st_mode & stat.S_IXUSR, f"{script} is not executable"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_find_python_refuses_with_a_remedy() -> None:
    script = ROOT / ".ci" / "find-python"
    found = run(script, sys.executable)
    assert found.returncode == 0 and Path(found.stdout.strip()).exists()
    refused = run(script, "no-such-python")
    assert refused.returncode == 1
    assert "Python 3.11 or newer" in refused.stderr and "apt-get" in refused.stderr


def test_units_name_existing_commands_and_files() -> None:
    unit = (ROOT / "systemd" / "coldstream@.service").read_text()
    assert "coldstream up --project" in unit
    for option in re.findall(r"--[a-z-]+", (ROOT / "systemd" / "session.env.example").read_text()):
        assert option in (ROOT / "docs" / "reference" / "commands.md").read_text()
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "SystemCallFilter=@system-service"):
        assert line in unit


LONG = "def f():\n" + "    x = 1\n" * 80
DOCUMENTED = 'def f():\n    """' + "words\n" * 80 + '"""\n    return 1\n'


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1\n" * 400, []),
        ("x = 1\n" * 401, [False]),
        ("x = 1\n" * 601, [True]),
        ("def f():\n" + "    x = 1\n" * 39, []),
        ("def f():\n" + "    x = 1\n" * 40, [False]),
        (LONG, [True]),
        ("class A:\n" + "".join(f"    {line}\n" for line in LONG.splitlines()), [True]),
        (DOCUMENTED, []),
    ],
)
def test_size_limits(source: str, expected: list[bool]) -> None:
    assert [finding.fails for finding in check_sizes.findings(source, "m.py")] == expected
