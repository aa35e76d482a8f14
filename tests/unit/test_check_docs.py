"""`make docs`: every relative link and anchor of the documentation leads somewhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_docs.py"


@pytest.fixture(scope="module")
def check_docs() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("check_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def problems(check_docs: ModuleType, tmp_path: Path) -> Callable[[str], list[str]]:
    """What is wrong with a page of the given text, beside `other.md`."""
    (tmp_path / "other.md").write_text(
        "# What `it` does, and why\n## Twice\n## Twice\n"
    )
    page = tmp_path / "page.md"

    def find(text: str) -> list[str]:
        page.write_text(text)
        return list(check_docs.problems(page))

    return find


@pytest.mark.parametrize(
    "link",
    [
        "[other](other.md)",
        "[heading](other.md#what-it-does-and-why)",
        "[the second of a name](other.md#twice-1)",
        '[with a title](other.md "Other")',
        "[by name][o]\n\n[o]: other.md",
        "![image](other.md)",
        '<img src="other.md">',
        "# Here\n[here](#here)",
        '<a id="spot"></a> [spot](#spot)',
        "[elsewhere](https://example.org/none.md)",
        "`[code](none.md)`",
        "```\n[code](none.md)\n```",
    ],
)
def test_links_that_lead_somewhere(
    problems: Callable[[str], list[str]], link: str
) -> None:
    """Files, headings and names that exist are fine; code and other sites are not ours."""
    assert problems(link) == []


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("[a](none.md)", "none.md: no such file"),
        ("[a](other.md#none)", "other.md#none: no such heading"),
        ("[a](#none)", "#none: no such heading"),
        ("[a][n]\n\n[n]: none.md", "none.md: no such file"),
        ('<img alt="" src="none.png">', "none.png: no such file"),
    ],
)
def test_links_that_lead_nowhere(
    problems: Callable[[str], list[str]], link: str, reason: str
) -> None:
    """A missing file or heading is named with its page."""
    (problem,) = problems(link)

    assert "page.md: " in problem
    assert reason in problem
