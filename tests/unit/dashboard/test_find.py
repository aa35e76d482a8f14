"""The search box, and the page that tells where a task is."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from tests.unit.dashboard.conftest import Login
from tests.unit.dead import archived
from tests.unit.recorder.seen import run
from unstuck import Celery
from unstuck.models import DeadLetter
from unstuck.recorder import facts

pytestmark = pytest.mark.django_db

SEARCH = reverse("unstuck:search")


def test_an_exact_id_leads_to_the_letter(operator: Client, app: Celery) -> None:
    """Of the task, of the letter, or the row."""
    letter = archived(app, task_id="abcd-1")
    archived(app, task_id="abcd-12")
    page = reverse("unstuck:letters_one", args=[letter.pk])

    for text in ("abcd-1", str(letter.letter_id), f" {letter.pk} "):
        assert operator.get(SEARCH, {"q": text})["Location"] == page


def test_an_id_with_a_run_leads_to_the_page_of_the_task(operator: Client) -> None:
    """Where its runs are."""
    facts.store([run("r-1", node="celery@w7")])

    response = operator.get(SEARCH, {"q": "r-1"}, follow=True)

    assert response.redirect_chain[-1][0] == reverse("unstuck:task") + "?id=r-1"
    assert b"celery@w7" in response.content


def test_the_beginning_of_an_id_lists_what_fits(operator: Client, app: Celery) -> None:
    """Letters and runs, and a task by its name."""
    letter = archived(app, task_id="abcd-12")
    facts.store([run("abcd-13")])

    page = operator.get(SEARCH, {"q": "abcd"}).content.decode()
    named = operator.get(SEARCH, {"q": "shop.charge"}).content.decode()

    assert reverse("unstuck:letters_one", args=[letter.pk]) in page
    assert "abcd-13" in page
    assert reverse("unstuck:letters") + "?task=shop.charge" in named


def test_what_is_nowhere_is_told_with_what_else_to_ask(
    operator: Client, app: Celery
) -> None:
    """An empty page is no answer."""
    page = operator.get(reverse("unstuck:task"), {"id": "gone"}).content.decode()

    assert "Nobody who was asked knows it." in page
    assert "The project has no result backend" in page
    assert "This broker lets nobody look into its queues." in page


def test_who_may_not_see_runs_is_told_of_none(login: Login, app: Celery) -> None:
    """Neither nodes nor the broker are asked for them."""
    client = login("view_node")

    page = client.get(reverse("unstuck:task"), {"id": "gone"}).content.decode()

    assert "python manage.py unstuck where gone" in page
    assert "result backend" not in page


def test_an_id_as_celery_makes_them_is_asked_for(operator: Client) -> None:
    """Also when nothing is written down of it, as of a task that waits."""
    task_id = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"

    response = operator.get(SEARCH, {"q": task_id})

    assert response["Location"] == f"{reverse('unstuck:task')}?id={task_id}"


def test_digits_that_may_be_two_things_show_both(operator: Client, app: Celery) -> None:
    """A row, and the beginning of an id."""
    row = archived(app, task_id="first")
    DeadLetter.objects.filter(pk=row.pk).update(id=4102)
    other = archived(app, task_id="4102-abcd")

    page = operator.get(SEARCH, {"q": "4102"}).content.decode()

    assert reverse("unstuck:letters_one", args=[4102]) in page
    assert reverse("unstuck:letters_one", args=[other.pk]) in page


@pytest.mark.parametrize("text", ["", "\x00", "9" * 18, "9" * 300, "%", "é", "a/b?c"])
def test_odd_words_are_no_error(operator: Client, text: str) -> None:
    """Whatever somebody pastes."""
    assert operator.get(SEARCH, {"q": text}).status_code == 200


def test_what_one_may_not_see_is_not_found(login: Login, app: Celery) -> None:
    """Not even that it is there."""
    archived(app, task_id="abcd-1")
    client = login("view_node")

    page = client.get(SEARCH, {"q": "abcd-1"})

    assert page.status_code == 200
    assert b"Nothing fits." in page.content
