"""`ALERTS`: pleasant to write, and whatever is wrong is told where it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unstuck.core.alerts import (
    CONDITIONS,
    Want,
    problems_in,
    shown,
    targets,
    without_secrets,
)

MAIL = "mailto:ops@example.com"
HOOK = "https://user:pass@hooks.example:8443/T0/s3cret?token=s3cret"


def test_without_conditions_a_target_wants_all() -> None:
    """With their defaults."""
    (target,) = targets([{"to": MAIL}])

    assert {want.condition: want.options for want in target.wants} == CONDITIONS


def test_conditions_are_names_or_have_options() -> None:
    """What an option does not say is the default."""
    on = ["node_lost", {"condition": "letters_above", "count": 5}]

    (target,) = targets([{"to": MAIL, "on": on}])

    assert list(problems_in([{"to": MAIL, "on": on}])) == []
    assert target.wants == (
        Want("node_lost", {}),
        Want("letters_above", {"count": 5, "minutes": 60}),
    )


def test_the_same_target_twice_is_one() -> None:
    """Or it would be told twice."""
    entries = [{"to": MAIL, "on": ["node_lost"]}, {"to": MAIL, "on": ["node_lost"]}]

    (target,) = targets(entries)

    assert target.conditions == ("node_lost",)


@pytest.mark.parametrize(
    "to",
    [
        MAIL,
        "mailto:a@x.example,b@y.example",
        "https://hooks.example",
        HOOK,
        "http://[::1]:8080/x",
        "shop.alerts.tell",
    ],
)
def test_right_targets(to: str) -> None:
    """Web addresses, mail addresses, functions."""
    assert problems_in([{"to": to}]) == []


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("ops", "[0] = 'ops' must be a dict"),
        ({}, "[0] has no 'to'"),
        ({"to": 7}, "[0]['to'] = 7 must be \"https://"),
        ({"to": "ops"}, "or the dotted path of a function"),
        ({"to": "ftp://host/x"}, "or the dotted path of a function"),
        ({"to": "https://"}, "must be a whole web address"),
        ({"to": "https://host:port/"}, "must be a whole web address"),
        ({"to": "https://host/a b"}, "must be a whole web address"),
        ({"to": "https://[::1/"}, "must be a whole web address"),
        ({"to": "mailto:ops"}, 'must be "mailto:" and addresses'),
        ({"to": MAIL, "on": []}, "[0]['on'] = [] must be a list of some of"),
        ({"to": MAIL, "on": "node_lost"}, "must be a list of some of"),
        ({"to": MAIL, "on": [7]}, "[0]['on'][0] = 7 must be the name of a condition"),
        ({"to": MAIL, "on": [{"count": 1}]}, "must be the name of a condition"),
        ({"to": MAIL, "on": ["nodes_lost"]}, "Did you mean 'node_lost'?"),
        ({"to": MAIL, "on": ["zzz"]}, "Known: new_fingerprint, letters_above"),
        ({"to": MAIL, "on": [{"condition": ["x"]}]}, "is not a condition"),
        (
            {"to": MAIL, "on": [{"condition": "queue_older_than", "second": 5}]},
            "'second' is not an option of queue_older_than. Did you mean 'seconds'?",
        ),
        (
            {"to": MAIL, "on": [{"condition": "node_lost", "count": 5}]},
            "'count' is not an option of node_lost. Known: none.",
        ),
        (
            {"to": MAIL, "on": [{"condition": "letters_above", "count": 0}]},
            "['on'][0]['count'] = 0 must be a number above 0",
        ),
        (
            {"to": MAIL, "on": [{"condition": "queue_older_than", "queue": ""}]},
            "['queue'] = '' must be the name of a queue",
        ),
        ({"to": MAIL, "On": []}, "[0]: 'On' is not a key of an alert"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(entry: Any, words: str) -> None:
    """Which value, and what it must be."""
    (problem,) = problems_in([entry])

    assert problem.startswith("UNSTUCK['ALERTS'][0]")
    assert words in problem


def test_all_problems_are_told_at_once() -> None:
    """Of all targets."""
    found = problems_in([{"to": "ops", "on": ["x", "y"]}, {}])

    assert len(found) == 4


@settings(max_examples=30)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["to", "on"]) | st.text(),
            st.text() | st.lists(st.text() | st.dictionaries(st.text(), st.floats())),
        )
    )
)
def test_it_is_either_right_or_has_problems(given: list[Any]) -> None:
    """A crash is not among the answers."""
    if not problems_in(given):
        assert len(targets(given)) <= len(given)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        (HOOK, "https://hooks.example:8443/…"),
        ("https://hooks.example", "https://hooks.example"),
        (f"no answer from <{HOOK}>.", "no answer from <https://hooks.example:8443/…>."),
        ("http://host?token=s3cret", "http://host/…"),
        (MAIL, MAIL),
    ],
)
def test_of_a_web_address_the_host_is_shown(text: str, safe: str) -> None:
    """Its path is a password."""
    assert without_secrets(text) == safe


def test_a_whole_setting_can_be_shown() -> None:
    """Right or wrong, whatever it is made of."""
    value = [{"to": HOOK, HOOK: (HOOK, 7)}]

    assert "s3cret" not in repr(shown(value))
    assert "s3cret" not in repr(problems_in(value))


def test_the_id_of_a_target_is_its_own() -> None:
    """And gives nothing away."""
    one, two = targets([{"to": HOOK}, {"to": HOOK + "x"}])

    assert one.id != two.id
    assert len(one.id) == 16
    assert one.shown == two.shown == "https://hooks.example:8443/…"
