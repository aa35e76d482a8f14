"""``UNSTUCK["ALERTS"]``: who is to be told of what, checked as a whole."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

MOST = 1_000_000
"""Letters, seconds or minutes: more than anybody means."""

CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "new_fingerprint": {},
    "letters_above": {"count": 100, "minutes": 60},
    "queue_older_than": {"seconds": 600, "queue": None},
    "queue_without_worker": {"seconds": 120, "queue": None},
    "node_lost": {},
    "recorder_behind": {"seconds": 60},
    "beat_overdue": {"seconds": 60},
}
"""What can be told, with its options and their defaults."""

EVENTS = frozenset({"new_fingerprint"})
"""What happens rather than lasts: it is told once, and never over."""

TARGET_KEYS = ("to", "on")

_WEB = re.compile(r"https?://[^\s'\"<>]*")
_MAIL = re.compile(r"mailto:[^@\s,?&]+@[^@\s,?&]+(,[^@\s,?&]+@[^@\s,?&]+)*")
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


@dataclass(frozen=True, slots=True)
class Want:
    """A condition with all its options."""

    condition: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """One who is to be told, and of what."""

    to: str
    wants: tuple[Want, ...]

    @property
    def id(self) -> str:
        """The same for the same target, and gives no secret away."""
        return hashlib.sha256(self.to.encode("utf-8", "replace")).hexdigest()[:16]

    @property
    def shown(self) -> str:
        """As it may be shown and stored: of a URL its host."""
        return without_secrets(self.to)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of what it wants, each once."""
        return tuple(dict.fromkeys(want.condition for want in self.wants))


def targets(given: Iterable[Mapping[str, Any]]) -> list[Target]:
    """What a value without problems says. Two of the same address are one."""
    wants: dict[str, list[Want]] = {}
    for entry in given:
        asked = entry.get("on", list(CONDITIONS))
        wants.setdefault(entry["to"], []).extend(_want(one) for one in asked)
    return [Target(to, tuple(asked)) for to, asked in wants.items()]


def _want(asked: Any) -> Want:
    if isinstance(asked, str):
        return Want(asked, CONDITIONS[asked])
    own = {key: value for key, value in asked.items() if key != "condition"}
    return Want(asked["condition"], {**CONDITIONS[asked["condition"]], **own})


def without_secrets(text: str) -> str:
    """Text in which of each web address only the host is left: paths are passwords."""
    return _WEB.sub(lambda found: _host_of(found[0]), text)


def _host_of(url: str) -> str:
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    return url if rest == host else f"{scheme}://{host}/…"


def shown(value: Any) -> Any:
    """A value, right or wrong, of ``ALERTS`` as it may be shown."""
    match value:
        case str():
            return without_secrets(value)
        case Mapping():
            return {shown(key): shown(item) for key, item in value.items()}
        case list():
            return [shown(item) for item in value]
        case tuple():
            return tuple(shown(item) for item in value)
        case _:
            return value


# -- what is wrong with it


def problems_in(given: Any) -> list[str]:
    """Everything that is wrong within a list of targets, one line each."""
    return [
        problem
        for place, entry in enumerate(given)
        for problem in _problems_of(entry, f"UNSTUCK['ALERTS'][{place}]")
    ]


def _problems_of(entry: Any, where: str) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        example = '{"to": "mailto:ops@example.com"}'
        yield f"{where} = {shown(entry)!r} must be a dict, as in {example}."
        return
    for key in entry:
        if key not in TARGET_KEYS:
            yield _unknown(where, key, "a key of an alert", TARGET_KEYS)
    if "to" not in entry:
        yield f"{where} has no 'to': say who is to be told."
    elif wrong := _wrong_address(entry["to"]):
        yield f"{where}['to'] = {shown(entry['to'])!r} {wrong}."
    asked = entry.get("on", [])
    if not isinstance(asked, (list, tuple)) or ("on" in entry and not asked):
        known = ", ".join(CONDITIONS)
        yield (
            f"{where}['on'] = {shown(asked)!r} must be a list of some of {known}. "
            f"Leave it out for all of them."
        )
        return
    for place, one in enumerate(asked):
        yield from _problems_of_want(one, f"{where}['on'][{place}]")


def _wrong_address(to: Any) -> str | None:
    must = (
        'must be "https://…", "mailto:ops@example.com" or the dotted path of a '
        'function, such as "shop.alerts.tell"'
    )
    if not isinstance(to, str):
        return must
    if to.startswith(("http://", "https://")):
        return None if _is_web(to) else "must be a whole web address"
    if to.startswith("mailto:"):
        return (
            None if _MAIL.fullmatch(to) else 'must be "mailto:" and addresses with "@"'
        )
    return None if _PATH.fullmatch(to) else must


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return good and url.isascii() and url.isprintable() and " " not in url


def _problems_of_want(asked: Any, where: str) -> Iterator[str]:
    if isinstance(asked, str):
        asked = {"condition": asked}
    if not isinstance(asked, Mapping) or "condition" not in asked:
        yield (
            f"{where} = {shown(asked)!r} must be the name of a condition, or a dict as "
            f'in {{"condition": "letters_above", "count": 10}}.'
        )
        return
    name = asked["condition"]
    options = CONDITIONS.get(name) if isinstance(name, str) else None
    if options is None:
        yield _unknown(where, name, "a condition", CONDITIONS)
        return
    for key, value in asked.items():
        if key == "condition":
            continue
        if key not in options:
            yield _unknown(where, key, f"an option of {name}", options)
        elif wrong := _wrong_option(key, value):
            yield f"{where}[{key!r}] = {shown(value)!r} {wrong}."


def _wrong_option(key: str, value: Any) -> str | None:
    if key == "queue":
        good = value is None or (isinstance(value, str) and value)
        return None if good else "must be the name of a queue, or None for all"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    good = is_number and 0 < value <= MOST
    return None if good else f"must be a number above 0, at most {MOST}"


def _unknown(where: str, word: Any, what: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(word), list(known), n=1)
    others = ", ".join(known) or "none"
    remedy = f"Did you mean {near[0]!r}?" if near else f"Known: {others}."
    return f"{where}: {shown(word)!r} is not {what}. {remedy}"
