"""Checks that every relative link and anchor of the documentation leads somewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\1`*\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)
LINK_TEXT = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
NAMED = re.compile(r"<[^>]+\b(?:id|name)=[\"']([^\"']+)[\"']")
TARGETS = (
    re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'(][^)]*)?\)"),  # [text](target "title")
    re.compile(
        r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)", re.MULTILINE
    ),  # [name]: target
    re.compile(r"<(?:a|img|source)\b[^>]*\b(?:href|src|srcset)=[\"']([^\"'\s]+)"),
)


def main() -> int:
    """Print each broken link as `FILE: TARGET: why`; 1 when there is one."""
    pages = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    broken = [problem for page in pages for problem in problems(page)]
    for problem in broken:
        sys.stdout.write(f"{problem}\n")
    sys.stdout.write(f"{len(pages)} pages, {len(broken)} broken links\n")
    return 1 if broken else 0


def problems(page: Path) -> Iterator[str]:
    """What is wrong with the links of `page`."""
    text = _prose(page)
    for pattern in TARGETS:
        for target in pattern.findall(text):
            reason = _why_broken(page, target)
            if reason:
                yield f"{_name(page)}: {target}: {reason}"


def _why_broken(page: Path, target: str) -> str | None:
    if re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.IGNORECASE):
        return None
    path, _, anchor = unquote(target).partition("#")
    found = (page.parent / path).resolve() if path else page
    if not found.exists():
        return "no such file"
    if anchor and found.suffix == ".md" and anchor not in anchors(found):
        return f"no such heading in {_name(found)}"
    return None


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of `page`: its headings as GitHub names them, and its own."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    seen: dict[str, int] = {}
    found = set(NAMED.findall(text))
    for heading in HEADING.findall(text):
        slug = _slug(heading)
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return frozenset(found)


def _slug(heading: str) -> str:
    text = LINK_TEXT.sub(r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def _prose(page: Path) -> str:
    return CODE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else str(page)


if __name__ == "__main__":
    sys.exit(main())
