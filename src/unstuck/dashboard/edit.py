"""Arguments that somebody edits: shown redacted, put together again when they are sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    """The edited arguments with what was redacted put back where it was.

    Raises ``EditError`` where it is not clear what was there.
    """
    try:
        args, kwargs, _embed = json.loads(bytes(letter.message))
    except (ValueError, TypeError) as error:
        raise EditError(_("The body of the message cannot be read.")) from error
    return Arguments(
        _put_back(edited.args, args, "args"), _put_back(edited.kwargs, kwargs, "kwargs")
    )


def as_json(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _put_back(edited: Any, original: Any, where: str) -> Any:
    if edited == REDACTED:
        if original is _NOTHING:
            raise EditError(
                _("At %(where)s there is no redacted value to keep; give a new one.")
                % {"where": where}
            )
        return original
    match edited:
        case list():
            if REDACTED in edited and not _is_as_long(edited, original):
                raise EditError(
                    _(
                        "%(where)s has another length than before: which redacted value "
                        "is meant is not clear. Give new ones."
                    )
                    % {"where": where}
                )
            return [
                _put_back(item, _item(original, number), f"{where}[{number}]")
                for number, item in enumerate(edited)
            ]
        case dict():
            return {
                name: _put_back(item, _value(original, name), f"{where}.{name}")
                for name, item in edited.items()
            }
        case _:
            return edited


_NOTHING = object()


def _is_as_long(edited: list[Any], original: Any) -> bool:
    return isinstance(original, list) and len(original) == len(edited)


def _item(original: Any, number: int) -> Any:
    fits = isinstance(original, list) and number < len(original)
    return original[number] if fits else _NOTHING


def _value(original: Any, name: str) -> Any:
    return original.get(name, _NOTHING) if isinstance(original, Mapping) else _NOTHING
