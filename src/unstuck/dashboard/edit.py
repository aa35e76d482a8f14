"""Arguments that somebody edits: shown redacted, put together again when they are sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from unstuck.letters.redact import REDACTED
from unstuck.models import DeadLetter

JSON = "application/json"


class EditError(Exception):
    """Edited arguments that cannot be used."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a task."""

    args: list[Any]
    kwargs: dict[str, Any]


class ReadableJSON(forms.JSONField):
    """JSON over several lines."""

    def prepare_value(self, value: Any) -> Any:
        # What somebody has typed stays as it is.
        return value if isinstance(value, str) else as_json(value)


class EditForm(forms.Form):
    """The arguments as JSON."""

    args = ReadableJSON(
        label=gettext_lazy("Positional, a JSON list"),
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false"}),
        required=False,
    )
    kwargs = ReadableJSON(
        label=gettext_lazy("By name, a JSON object"),
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false"}),
        required=False,
    )
    why = forms.CharField(label=gettext_lazy("Reason"), max_length=500, required=False)

    def clean_args(self) -> list[Any]:
        value = self.cleaned_data["args"]
        if value is None:
            return []
        if not isinstance(value, list):
            raise forms.ValidationError(_("This must be a JSON list, such as [1, 2]."))
        return value

    def clean_kwargs(self) -> dict[str, Any]:
        value = self.cleaned_data["kwargs"]
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise forms.ValidationError(
                _('This must be a JSON object, such as {"order": 1}.')
            )
        return value


def shown(letter: DeadLetter) -> Arguments | None:
    """The arguments of a letter as they may be shown; ``None`` if they cannot be read."""
    if not isinstance(letter.args, list) or not isinstance(letter.kwargs, dict):
        return None
    return Arguments(letter.args, letter.kwargs)


def is_editable(letter: DeadLetter) -> bool:
    """Whether the arguments can be given anew."""
    return letter.content_type == JSON and shown(letter) is not None


def completed(letter: DeadLetter, edited: Arguments) -> Arguments:
    """The edited arguments, with all that was left as it was shown as the message has it.

    What is shown has lost something: what is redacted, and the types of dates, decimal
    numbers and UUIDs. Raises ``EditError`` where it is not clear what was there.
    """
    before = shown(letter)
    try:
        args, kwargs, _embed = json.loads(bytes(letter.message))
    except (ValueError, TypeError) as error:
        raise EditError(_("The body of the message cannot be read.")) from error
    if before is None:
        raise EditError(_("The body of the message cannot be read."))
    return Arguments(
        _put_back(edited.args, _Before(before.args, args), "args"),
        _put_back(edited.kwargs, _Before(before.kwargs, kwargs), "kwargs"),
    )


def as_json(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


class _Before(NamedTuple):
    """A value as it was shown, and as it is in the message."""

    shown: Any
    original: Any


_NOTHING = _Before(None, None)


def _put_back(edited: Any, before: _Before, where: str) -> Any:
    if _is_left(edited, before):
        return before.original
    if edited == REDACTED:
        raise EditError(
            _("At %(where)s there is no redacted value to keep; give a new one.")
            % {"where": where}
        )
    match edited:
        case list():
            befores = _items(edited, _pairs(before), where)
            return [
                _put_back(item, befores[number], f"{where}[{number}]")
                for number, item in enumerate(edited)
            ]
        case dict():
            return {
                name: _put_back(item, _value(before, name), f"{where}.{name}")
                for name, item in edited.items()
            }
        case _:
            return edited


def _is_left(edited: Any, before: _Before) -> bool:
    # As text: in Python 1, 1.0 and True are equal.
    return before is not _NOTHING and as_json(edited) == as_json(before.shown)


def _items(edited: list[Any], pairs: list[_Before], where: str) -> list[_Before]:
    """What each item of a list was before: the one in its place, or one that has moved."""
    in_place = len(edited) == len(pairs)
    if REDACTED in edited and not in_place:
        raise EditError(
            _(
                "%(where)s has another length than before: which redacted value "
                "is meant is not clear. Give new ones."
            )
            % {"where": where}
        )
    known = _by_what_was_shown(pairs)
    places = pairs if in_place else [_NOTHING] * len(edited)
    return [
        place if _is_left(item, place) else known.get(as_json(item), place)
        for item, place in zip(edited, places, strict=True)
    ]


def _by_what_was_shown(pairs: list[_Before]) -> dict[str, _Before]:
    """The items of a list by what was shown; by what several are shown as, none."""
    known: dict[str, _Before] = {}
    for pair in pairs:
        text = as_json(pair.shown)
        alike = known.setdefault(text, pair).original == pair.original
        known[text] = pair if alike and pair.shown != REDACTED else _NOTHING
    return known


def _pairs(before: _Before) -> list[_Before]:
    shown, original = before
    if not isinstance(shown, list) or not isinstance(original, list):
        return []
    if len(shown) != len(original):
        return []
    return [_Before(*pair) for pair in zip(shown, original, strict=True)]


def _value(before: _Before, name: str) -> _Before:
    shown, original = before
    if not isinstance(shown, dict) or not isinstance(original, dict):
        return _NOTHING
    known = name in shown and name in original
    return _Before(shown[name], original[name]) if known else _NOTHING
