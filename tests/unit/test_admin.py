"""Dead letters, runs, minutes, incidents and the audit in Django's admin."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from tests.unit.dead import TRACEBACK, archived, published
from tests.unit.recorder.seen import about, incident, minute, run
from unstuck import Celery
from unstuck.admin import acting
from unstuck.core.clock import system_clock
from unstuck.core.verdict import Reason
from unstuck.dashboard.frames import HIDDEN
from unstuck.models import AuditEntry, DeadLetter, Incident, Node, TaskMinute, TaskRun
from unstuck.operations import replay_letter
from unstuck.pool.board import Board
from unstuck.recorder import facts
from unstuck.recorder.node import Presence

pytestmark = pytest.mark.django_db

LIST = reverse("admin:unstuck_deadletter_changelist")
SCRIPT = "<script>alert(1)</script>"


def page(name: str, letter: DeadLetter) -> str:
    return reverse(f"admin:unstuck_deadletter_{name}", args=[letter.pk])


def text_of(client: Client, url: str, **query: str) -> str:
    response = client.get(url, query)
    assert response.status_code == 200
    return response.content.decode()


def login(client: Client, *permissions: str) -> Client:
    """A member of the staff with these permissions and no others."""
    user = User.objects.create_user("olga", is_staff=True)
    for codename in permissions:
        user.user_permissions.add(Permission.objects.get(codename=codename))
    client.force_login(user)
    return client


@pytest.fixture
def viewer(client: Client) -> Client:
    return login(client, "view_deadletter")


@pytest.fixture
def operator(client: Client) -> Client:
    return login(client, "view_deadletter", "operate")


def recorded(*seen: Any) -> None:
    """Store facts, and the row of a node, the way the recorder does."""
    facts.store(seen)
    Presence(about(name=f"celery@{SCRIPT}"), Board()).tell()


def list_of(model: str) -> str:
    return reverse(f"admin:unstuck_{model}_changelist")


def row_of(model: Any) -> str:
    """The page of the only row there is."""
    name = f"admin:unstuck_{model._meta.model_name}_change"
    return reverse(name, args=[model._default_manager.get().pk])


RECORDS = (TaskRun, TaskMinute, Incident, Node)


def act(client: Client, action: str, *letters: DeadLetter, **more: Any) -> Any:
    """Choose an action in the list, and confirm it when ``more`` says so."""
    rows = [letter.pk for letter in letters]
    data = {"action": action, "_selected_action": rows, **more}
    return client.post(LIST, data, follow=True)


def test_nobody_looks_without_permission(client: Client, app: Celery) -> None:
    """Being staff is not enough."""
    letter = archived(app)
    login(client)

    for url in (LIST, page("change", letter), page("replay", letter)):
        assert client.get(url).status_code == 403


def test_the_list_shows_what_ended_a_task(admin_client: Client, app: Celery) -> None:
    """Task, reason and ending."""
    archived(app, reason=Reason.HARD_LIMIT, exception_message="card refused")

    listed = text_of(admin_client, LIST)

    assert "shop.charge" in listed
    assert "hard limit" in listed
    assert "ValueError: card refused" in listed


def test_letters_are_read_only(admin_client: Client, app: Celery) -> None:
    """Not even a superuser adds, changes, or deletes without a reason."""
    letter = archived(app)

    assert admin_client.get(reverse("admin:unstuck_deadletter_add")).status_code == 403
    assert admin_client.get(page("delete", letter)).status_code == 403
    changed = admin_client.post(page("change", letter), {"task_name": "other"})
    assert changed.status_code == 403
    assert "delete_selected" not in text_of(admin_client, LIST)


def test_a_viewer_sees_no_button_and_no_action(viewer: Client, app: Celery) -> None:
    """What one may not do is not offered."""
    letter = archived(app)

    assert "replay_selected" not in text_of(viewer, LIST)
    shown = text_of(viewer, page("change", letter))
    assert page("replay", letter) not in shown
    assert page("purge", letter) not in shown
    assert page("body", letter) not in shown


@pytest.mark.parametrize("name", ["replay", "purge"])
def test_a_viewer_cannot_act(viewer: Client, app: Celery, name: str) -> None:
    """Neither on one letter nor by a forged action."""
    letter = archived(app)

    answer = {"confirmed": "yes", "why": "because"}
    assert viewer.get(page(name, letter)).status_code == 403
    assert viewer.post(page(name, letter), answer).status_code == 403
    act(viewer, f"{name}_selected", letter, **answer)

    letter.refresh_from_db()
    assert letter.replayed_at is None
    assert not AuditEntry.objects.exists()


def test_arguments_are_hidden_without_the_permission(
    operator: Client, app: Celery
) -> None:
    """Also from whoever may operate: page, search, headers and body."""
    letter = archived(app, args=[1], kwargs={"city": "Cologne"})

    shown = text_of(operator, page("change", letter))
    assert "hidden: needs unstuck.view_payload" in shown
    assert "Cologne" not in shown
    assert operator.get(page("body", letter)).status_code == 403
    assert page("change", letter) not in text_of(operator, LIST, q="Cologne")


def test_arguments_are_shown_redacted_with_the_permission(
    client: Client, app: Celery
) -> None:
    """Secrets stay within the message, which has a page of its own."""
    letter = archived(
        app, args=[1, "s3cret"], kwargs={"city": "Köln", "password": "pw"}
    )
    login(client, "view_deadletter", "view_payload")

    shown = text_of(client, page("change", letter))
    body = text_of(client, page("body", letter))

    assert "Köln" in shown
    assert "[redacted]" in shown
    assert "s3cret" not in shown
    assert "s3cret" in body
    assert page("change", letter) in text_of(client, LIST, q="Köln")


def test_what_exceptions_say_is_hidden_without_the_permission(
    client: Client, app: Celery
) -> None:
    """They quote arguments: of letters and of runs, in lists, on pages, and searched for."""
    said = {
        "exception_message": "no such customer mina",
        "traceback": f"{TRACEBACK}mina\n",
    }
    letter = archived(app, **said)
    recorded(run(**{"exception_type": "ValueError", **said}))
    login(client, "view_deadletter", "view_taskrun")

    for url in (LIST, list_of("taskrun"), page("change", letter), row_of(TaskRun)):
        shown = text_of(client, url)
        assert "mina" not in shown, url
        assert "ValueError" in shown, url
    for url in (page("change", letter), row_of(TaskRun)):
        shown = text_of(client, url)
        assert f"ValueError: {HIDDEN}" in shown
        assert "/srv/shop/billing.py" in shown
    assert page("change", letter) not in text_of(client, LIST, q="mina")
    assert "0 task runs" in text_of(client, list_of("taskrun"), q="mina")
    assert "1 task run" in text_of(client, list_of("taskrun"), q="ValueError")


def test_edited_arguments_in_the_audit_are_hidden_without_the_permission(
    client: Client, app: Celery
) -> None:
    """All else that an entry says is shown."""
    replay_letter(app, archived(app), who="bob", args=[471108154711], kwargs={})
    login(client, "view_auditentry")
    user = User.objects.get()

    shown = text_of(client, row_of(AuditEntry))
    assert "471108154711" not in shown
    assert "shop.charge" in shown
    user.user_permissions.add(Permission.objects.get(codename="view_payload"))

    assert "471108154711" in text_of(client, row_of(AuditEntry))


OURS = [model for model in site._registry if model._meta.app_label == "unstuck"]


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_rows_are_not_filtered_by_what_is_hidden(
    admin_client: Client, model: Any
) -> None:
    """How many there are would tell: a URL has the filters that the page offers only."""
    admin = site._registry[model]
    offered = {*map(str, admin.list_filter), str(admin.date_hierarchy)}
    url = list_of(model._meta.model_name)
    hidden = {field.name for field in model._meta.fields} - offered
    assert hidden

    for name in hidden:
        for lookup in (name, f"{name}__icontains", f"{name}__isnull"):
            assert admin_client.get(url, {lookup: "1"}).status_code == 400, lookup


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_rows_are_filtered_by_what_the_page_offers(
    admin_client: Client, model: Any
) -> None:
    """Each link of the page leads to a list and not to an error."""
    recorded(run(), minute(), incident())
    url = list_of(model._meta.model_name)
    links = set(re.findall(r'href="(\?[^"]+)"', text_of(admin_client, url)))
    if model in RECORDS:
        assert links

    for link in links:
        assert admin_client.get(url + unescape(link)).status_code == 200, link


def test_what_tasks_say_is_escaped(admin_client: Client, app: Celery) -> None:
    """On every page that shows it."""
    letter = archived(
        app,
        task_id=SCRIPT,
        task=f"shop.{SCRIPT}",
        args=[SCRIPT],
        kwargs={SCRIPT: SCRIPT},
        cause=SCRIPT,
        exception_type=SCRIPT,
        exception_message=SCRIPT,
        traceback=SCRIPT,
        stack=SCRIPT,
        waiting_for=SCRIPT,
    )
    replay_letter(app, letter, who=SCRIPT, why=SCRIPT)
    entry = AuditEntry.objects.get()

    urls = [
        LIST,
        *(page(name, letter) for name in ("change", "replay", "purge", "body")),
        reverse("admin:unstuck_auditentry_changelist"),
        reverse("admin:unstuck_auditentry_change", args=[entry.pk]),
    ]
    for url in urls:
        shown = text_of(admin_client, url)
        assert SCRIPT not in shown
        assert "&lt;script&gt;" in shown


@pytest.mark.parametrize(
    "query",
    [
        {"q": "abcd-1"},
        {"q": "shop.charge"},
        {"q": "card REFUSED"},
        {"task": "shop.charge"},
        {"reason__exact": "failed"},
        {"replayed": "no"},
        {"buried_at__year": "2026", "buried_at__month": "5"},
    ],
)
def test_letters_are_found(
    admin_client: Client, app: Celery, query: dict[str, str]
) -> None:
    """By id, name, what was raised, and by the filters."""
    wanted = archived(app, task_id="abcd-1", exception_message="card refused")
    other = archived(
        app, task="shop.mail", reason=Reason.LOST, buried_at=wanted.archived_at
    )
    replay_letter(app, other, who="bob")

    listed = text_of(admin_client, LIST, **query)

    assert page("change", wanted) in listed
    assert page("change", other) not in listed


def test_a_list_costs_the_same_however_long_it_is(
    viewer: Client, app: Celery, django_assert_max_num_queries: Any
) -> None:
    """No query for each letter."""
    for _ in range(30):
        archived(app)

    with django_assert_max_num_queries(12):
        text_of(viewer, LIST)


def test_one_letter_is_replayed_once_it_is_confirmed(
    operator: Client, app: Celery
) -> None:
    """The first page only asks; the audit names the user and the reason."""
    letter = archived(app)

    asked = text_of(operator, page("replay", letter))
    assert "Replay 1 dead letter?" in asked
    assert published(app) == []
    answer = {"confirmed": "yes", "why": "fixed in 1.2"}
    response = operator.post(page("replay", letter), answer, follow=True)

    (message,) = published(app)
    letter.refresh_from_db()
    assert letter.replayed_as == message.headers["id"]
    assert "1 dead letter replayed." in response.content.decode()
    entry = AuditEntry.objects.get()
    assert (entry.who, entry.why) == ("olga", "fixed in 1.2")


def test_a_get_changes_nothing(operator: Client, app: Celery) -> None:
    """Also with the answer in the address."""
    letter = archived(app)

    operator.get(page("replay", letter), {"confirmed": "yes", "why": "x"})
    operator.get(page("purge", letter), {"confirmed": "yes", "why": "x"})

    assert published(app) == []
    assert DeadLetter.objects.filter(replayed_at=None).exists()


def test_acting_needs_the_csrf_token(app: Celery) -> None:
    """Another site cannot replay in the name of an operator."""
    letter = archived(app)
    client = login(Client(enforce_csrf_checks=True), "view_deadletter", "operate")

    response = client.post(page("replay", letter), {"confirmed": "yes", "why": "x"})

    assert response.status_code == 403
    assert published(app) == []


def test_many_letters_are_replayed_once_it_is_confirmed(
    operator: Client, app: Celery
) -> None:
    """The page says how many, and how many were replayed before."""
    one, two, done = archived(app), archived(app), archived(app)
    replay_letter(app, done, who="bob")
    published(app)

    asked = act(operator, "replay_selected", one, two, done).content.decode()
    assert "Replay 3 dead letters?" in asked
    assert "skipped therefore: 1." in asked
    response = act(operator, "replay_selected", one, two, done, confirmed="yes")

    assert len(published(app)) == 2
    told = response.content.decode()
    assert "2 dead letters replayed." in told
    assert f"The dead letter {done.pk} was replayed at" in told


def test_letters_are_purged_for_a_reason(operator: Client, app: Celery) -> None:
    """Without one the page asks again."""
    gone, kept = archived(app), archived(app)

    again = act(operator, "purge_selected", gone, confirmed="yes", why=" ")
    assert "This field is required." in again.content.decode()
    assert DeadLetter.objects.count() == 2
    act(operator, "purge_selected", gone, confirmed="yes", why="noise")

    assert DeadLetter.objects.get() == kept
    assert AuditEntry.objects.get().why == "noise"


def test_one_letter_is_purged_for_a_reason(operator: Client, app: Celery) -> None:
    """Afterwards the list is shown, because the letter has no page any more."""
    letter = archived(app)

    answer = {"confirmed": "yes", "why": "noise"}
    response = operator.post(page("purge", letter), answer)

    assert response.headers["Location"] == LIST
    assert not DeadLetter.objects.exists()
    assert operator.get(page("purge", letter)).headers["Location"] == LIST


def test_more_than_one_request_can_do_is_refused(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the command that can."""
    monkeypatch.setattr(acting, "MOST_AT_ONCE", 1)
    letters = [archived(app), archived(app)]

    response = act(operator, "replay_selected", *letters, confirmed="yes")

    assert "manage.py unstuck dead replay" in response.content.decode()
    assert published(app) == []


def test_without_an_app_of_ours_the_page_says_what_to_do(
    operator: Client, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error on the page, not a page of errors."""
    letter = archived(app)
    monkeypatch.setattr("unstuck.project.current_app", lambda: None)

    response = act(operator, "replay_selected", letter, confirmed="yes")

    assert "No Celery app is loaded" in response.content.decode()


def test_a_replay_and_its_original_are_linked(viewer: Client, app: Celery) -> None:
    """Both ways, once the replay has died as well."""
    first = archived(app)
    task_id = replay_letter(app, first, who="bob")
    second = archived(app, task_id=task_id)
    second.replay_of = first.task_id
    second.save()

    assert page("change", second) in text_of(viewer, page("change", first))
    assert page("change", first) in text_of(viewer, page("change", second))


def test_a_letter_that_cannot_be_read_has_a_page(
    admin_client: Client, app: Celery
) -> None:
    """An undecodable message is shown as far as there is something to show."""
    letter = archived(app, body=b"\xff\x00", reason=Reason.UNDECODABLE, task="")

    assert "could not be read" in text_of(admin_client, page("change", letter))
    assert "\\xff" in text_of(admin_client, page("body", letter))


def test_the_audit_is_read_only(admin_client: Client, app: Celery) -> None:
    """Nobody edits what was done."""
    replay_letter(app, archived(app), who="alice", why="fixed")
    entry = AuditEntry.objects.get()
    url = reverse("admin:unstuck_auditentry_change", args=[entry.pk])

    assert "fixed" in text_of(admin_client, url)
    assert admin_client.post(url, {"why": "other"}).status_code == 403
    add = reverse("admin:unstuck_auditentry_add")
    assert admin_client.get(add).status_code == 403
    assert "delete_selected" not in text_of(
        admin_client, reverse("admin:unstuck_auditentry_changelist")
    )


@pytest.mark.parametrize("model", RECORDS)
def test_what_happened_is_seen_with_its_own_permission(
    client: Client, model: Any
) -> None:
    """And without it by nobody."""
    recorded(run(), minute(), incident())
    name = model._meta.model_name
    login(client)
    assert client.get(list_of(name)).status_code == 403
    assert client.get(row_of(model)).status_code == 403

    user = User.objects.get()
    user.user_permissions.add(Permission.objects.get(codename=f"view_{name}"))

    assert client.get(list_of(name)).status_code == 200
    assert client.get(row_of(model)).status_code == 200


@pytest.mark.parametrize("model", RECORDS)
def test_what_happened_is_read_only(admin_client: Client, model: Any) -> None:
    """Not even a superuser adds, changes or deletes it."""
    recorded(run(), minute(), incident())
    name = model._meta.model_name

    assert "delete_selected" not in text_of(admin_client, list_of(name))
    assert admin_client.post(row_of(model), {"node": "other"}).status_code == 403
    add = reverse(f"admin:unstuck_{name}_add")
    assert admin_client.get(add).status_code == 403
    delete = row_of(model).replace("change", "delete")
    assert admin_client.get(delete).status_code == 403


def test_a_run_shows_how_it_ended(admin_client: Client) -> None:
    """In the list by a line, on its page with the stacks, line by line."""
    recorded(
        run(
            ending="hard_limit",
            exception_type="TimeLimitExceeded",
            exception_message="300",
            stack=TRACEBACK,
            soft_stack="soft\nstack",
            waiting_for="poll() of a socket to 10.0.0.7:5432",
            runtime_seconds=300.25,
            rss_bytes=200 * 2**20,
            rss_growth_bytes=None,
        )
    )

    listed = text_of(admin_client, list_of("taskrun"))
    shown = text_of(admin_client, row_of(TaskRun))

    assert "TimeLimitExceeded: 300" in listed
    assert "300 s" in listed
    assert '<pre class="unstuck-block">Traceback (most recent call last):' in shown
    assert '<pre class="unstuck-block">soft\nstack</pre>' in shown
    assert "10.0.0.7:5432" in shown
    assert "200 MiB" in shown


@pytest.mark.parametrize(
    "query",
    [
        {"q": "abcd-1"},
        {"q": "shop.charge"},
        {"q": "card refused"},
        {"task": "shop.charge"},
        {"ending__exact": "failed"},
        {"swallowed_soft_limit__exact": "1"},
    ],
)
def test_runs_are_found(admin_client: Client, query: dict[str, str]) -> None:
    """By id, name, what was raised, and by the filters."""
    wanted = run(
        "abcd-1",
        task_name="shop.charge",
        exception_message="card refused",
        swallowed_soft_limit=True,
    )
    recorded(wanted, run("other", ending="retried"))

    listed = text_of(admin_client, list_of("taskrun"), **query)

    assert "1 task run" in listed
    assert "card refused" in listed


def test_a_minute_shows_its_mean_and_its_longest_runtime(admin_client: Client) -> None:
    """One that nothing ended in has none."""
    counts = {"succeeded": 3, "failed": 1}
    seconds = {"runtime_seconds": 10.0, "runtime_max": 7.0}
    recorded(
        minute(
            counts=counts,
            rss_growth_bytes=3 * 2**20,
            runtimes="60:3 100:1",
            waits="60:1",
            **seconds,
        ),
        minute(task_name="shop.idle", counts={}),
    )

    listed = text_of(admin_client, list_of("taskminute"))

    assert "2.5 s" in listed
    assert "7 s" in listed
    assert "3 MiB" in listed
    assert "shop.idle" in listed
    busy = TaskMinute.objects.get(task_name="shop.send")
    page_of_it = reverse("admin:unstuck_taskminute_change", args=[busy.pk])
    shown = text_of(admin_client, page_of_it)
    assert "0.0225 s, 0.719 s, 0.719 s" in shown
    assert "0.0225 s, 0.0225 s, 0.0225 s" in shown


def test_an_incident_shows_what_was_seen(admin_client: Client) -> None:
    """Where the process stood, and the details."""
    recorded(incident(stack=TRACEBACK, details={"silent seconds": 31}))

    assert "Silent." in text_of(admin_client, list_of("incident"))
    shown = text_of(admin_client, row_of(Incident))
    assert '<pre class="unstuck-block">Traceback' in shown
    assert "&quot;silent seconds&quot;: 31" in shown


def test_a_node_shows_how_it_is(admin_client: Client) -> None:
    """Ready, or lost when it was not seen for long; and what it consumes."""
    recorded()
    Node.objects.update(state="ready")
    assert '"field-condition">ready' in text_of(admin_client, list_of("node"))

    Node.objects.update(seen_at=system_clock() - timedelta(minutes=2))

    assert '"field-condition">lost' in text_of(admin_client, list_of("node"))
    assert "mail, work" in text_of(admin_client, row_of(Node))


@pytest.mark.parametrize("model", RECORDS)
def test_what_happened_is_escaped(admin_client: Client, model: Any) -> None:
    """Tasks, hosts and exceptions have names that somebody made up."""
    texts = dict.fromkeys(("cause", "exception_message", "traceback", "stack"), SCRIPT)
    recorded(
        run(SCRIPT, task_name=SCRIPT, queue=SCRIPT, soft_stack=SCRIPT, **texts),
        minute(task_name=SCRIPT, queue=SCRIPT, node=SCRIPT),
        incident(what=SCRIPT, stack=SCRIPT, node=SCRIPT, details={SCRIPT: SCRIPT}),
    )

    for url in (list_of(model._meta.model_name), row_of(model)):
        shown = text_of(admin_client, url)
        assert SCRIPT not in shown
        assert "&lt;script&gt;" in shown


@pytest.mark.parametrize("model", RECORDS)
def test_a_list_of_what_happened_costs_the_same_however_long_it_is(
    admin_client: Client, model: Any, django_assert_max_num_queries: Any
) -> None:
    """No query for each row, and no stack is read for it."""
    for number in range(30):
        recorded(run(), minute(task_name=f"shop.{number}"), incident())

    with django_assert_max_num_queries(12) as queries:
        text_of(admin_client, list_of(model._meta.model_name))

    assert not any('"stack"' in query["sql"] for query in queries.captured_queries)
