"""Who may open which page of the dashboard, with which verb."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import Client
from django.urls import reverse

from tests.unit.dashboard.conftest import LOOKS, Login
from tests.unit.dead import archived
from tests.unit.recorder.seen import incident
from unstuck import Celery
from unstuck.dashboard import urls
from unstuck.locks.backend import Held
from unstuck.models import AuditEntry, DeadLetter, Incident
from unstuck.recorder import facts

pytestmark = pytest.mark.django_db

DEAD = "view_deadletter"
RUNS = "view_taskrun"
ANY = "any"
"""One permission to look, whichever, is enough."""

NEEDS: Mapping[str, tuple[str, ...]] = {
    "overview": (ANY,),
    "search": (ANY,),
    "task": (ANY,),
    "tasks": ("view_taskrun",),
    "tasks_one": ("view_taskrun",),
    "letters": (DEAD,),
    "letters_groups": (DEAD,),
    "letters_one": (DEAD,),
    "letters_replay": (DEAD, "operate"),
    "letters_replay_run": (DEAD, "operate"),
    "letters_purge": (DEAD, "operate"),
    "letters_edit": (DEAD, "operate", "view_payload"),
    "incidents": ("view_incident",),
    "incidents_one": ("view_incident",),
    "workers": ("view_node",),
    "running": (RUNS,),
    "running_stack": (RUNS,),
    "running_stop": (RUNS, "operate"),
    "planned": (RUNS,),
    "planned_run": (RUNS, "operate"),
    "planned_drop": (RUNS, "operate"),
    "queues": ("view_node",),
    "queues_pause": ("view_node", "operate"),
    "queues_resume": ("view_node", "operate"),
    "periodic": ("view_node",),
    "locks": (RUNS,),
    "locks_release": (RUNS, "operate"),
    "audit": ("view_auditentry",),
}
"""What each page needs. A new page has to be added here."""

ACTS = {
    "letters_replay",
    "letters_replay_run",
    "letters_purge",
    "letters_edit",
    "locks_release",
    "running_stop",
    "planned_run",
    "planned_drop",
    "queues_pause",
    "queues_resume",
}
"""Pages that take a POST."""

ROLES: Mapping[str, tuple[str, ...]] = {
    "nobody": (),
    "viewer": LOOKS,
    "reader of payloads": (*LOOKS, "view_payload"),
    "operator": (*LOOKS, "operate"),
    "operator who sees payloads": (*LOOKS, "operate", "view_payload"),
    "operator who may not look": ("operate", "view_payload"),
    "viewer of nodes": ("view_node",),
}
VERBS = ("get", "head", "post", "put", "patch", "delete", "options")
HEADERS = {
    "Cache-Control": "no-store, private",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


@pytest.fixture
def pages(app: Celery, held: Held) -> dict[str, str]:
    """A URL of each page, with rows behind it."""
    letter = archived(app)
    facts.store([incident()])
    rows = {"letters": letter.pk, "incidents": Incident.objects.get().pk}

    def url_of(name: str) -> str:
        args = [rows[name.partition("_")[0]]] if name in WITH_ROW else []
        url = reverse(f"unstuck:{name}", args=args)
        about = f"?row={letter.pk}&name={held.name}"
        return f"{url}{about}" if name in ACTS else url

    return {name: url_of(name) for name in _names()}


WITH_ROW = {"letters_one", "letters_edit", "incidents_one"}


def _names() -> Iterator[str]:
    return (str(pattern.name) for pattern in urls.urlpatterns)


def test_every_page_has_an_expectation() -> None:
    """Whoever adds a page says here who may open it."""
    assert set(_names()) == set(NEEDS)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_opens_what_it_may_and_nothing_else(
    login: Login, pages: dict[str, str], role: str
) -> None:
    """Pages answer by their own permissions, whatever the navigation shows."""
    client = login(*ROLES[role])

    for name, url in pages.items():
        for verb in VERBS:
            status = getattr(client, verb)(url).status_code
            assert status in _expected(name, verb, ROLES[role]), (name, verb)


def _expected(name: str, verb: str, has: tuple[str, ...]) -> set[int]:
    if verb not in {"get", "head"} and not (verb == "post" and name in ACTS):
        return {405}
    looks = any(permission in LOOKS for permission in has)
    fits = all(looks if need == ANY else need in has for need in NEEDS[name])
    return {200, 302} if fits else {403}


@pytest.mark.parametrize("is_staff", [True, False])
def test_permissions_count_for_staff_only(
    login: Login, pages: dict[str, str], is_staff: bool
) -> None:
    """As in the admin."""
    client = login(*LOOKS, "operate", "view_payload", is_staff=is_staff)

    response = client.get(pages["letters"])

    assert response.status_code == (200 if is_staff else 403)
    if not is_staff:
        page = response.content.decode()
        assert "It is for members of the staff, and olga is none." in page
        assert "view_deadletter" not in page


def test_somebody_unknown_is_asked_to_log_in(
    client: Client, pages: dict[str, str]
) -> None:
    """On every page, and comes back to it; nothing is done for them."""
    for url in pages.values():
        response = client.get(url)
        assert response.status_code == 302
        assert response["Location"].startswith(
            reverse("admin:login") + "?next=/unstuck"
        )
    assert client.post(pages["letters_purge"], {"why": "x"}).status_code == 302
    assert DeadLetter.objects.exists()


def test_the_project_s_own_login_is_used(
    client: Client, pages: dict[str, str], settings: Any
) -> None:
    """Where it has one."""
    settings.LOGIN_URL = "/sign-in/"

    assert client.get(pages["letters"])["Location"].startswith("/sign-in/?next=")


@pytest.mark.parametrize("role", ["nobody", "operator who sees payloads"])
def test_every_answer_is_secured(
    login: Login, pages: dict[str, str], role: str
) -> None:
    """Pages, refusals and redirects alike: strict CSP, never stored, never framed."""
    client = login(*ROLES[role])

    for url in pages.values():
        response = client.get(url)
        policy = response["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert {name: response[name] for name in HEADERS} == HEADERS


def test_pages_have_nothing_inline(operator: Client, pages: dict[str, str]) -> None:
    """No script, no style, no handler, no other host: the CSP would not let them."""
    for url in pages.values():
        text = operator.get(url).content.decode()
        assert "<style" not in text
        assert " style=" not in text
        assert " onclick=" not in text
        assert text.count("<script") == text.count("<script src=")
        assert 'src="http' not in text


def test_an_act_needs_the_token(login: Login, pages: dict[str, str]) -> None:
    """Also where the project has no middleware for it."""
    login(*LOOKS, "operate", "view_payload")
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(_olga())

    for name in ACTS:
        response = strict.post(pages[name], {"why": "because"})
        assert response.status_code == 403
    assert not AuditEntry.objects.exists()


def _olga() -> Any:
    from django.contrib.auth.models import User

    return User.objects.get(username="olga")


def test_a_superuser_of_the_staff_may_everything(
    admin_client: Client, pages: dict[str, str]
) -> None:
    """As in the admin."""
    for url in pages.values():
        assert admin_client.get(url).status_code in {200, 302}


def allow_looking(request: HttpRequest, permission: str) -> bool:
    """A policy: whoever sends the right header may look."""
    key = request.headers.get("X-Key") == "open"
    return key and permission.startswith("unstuck.view_dead")


async def allow_nothing(request: HttpRequest, permission: str) -> bool:
    """A policy that forgot to be a plain function."""
    return True


def test_a_project_has_its_own_policy(
    client: Client, pages: dict[str, str], settings: Any
) -> None:
    """It decides alone, for each permission."""
    settings.UNSTUCK = {"DASHBOARD_POLICY": f"{__name__}.allow_looking"}
    key = {"headers": {"X-Key": "open"}}

    assert client.get(pages["letters"], **key).status_code == 200
    assert client.get(pages["letters_purge"], **key).status_code == 302
    assert client.get(pages["letters"]).status_code == 302


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize(
    ("path", "status"), [("allow_nothing", 403), ("no_such_function", 503)]
)
def test_a_policy_that_is_wrong_opens_nothing(
    operator: Client, pages: dict[str, str], settings: Any, path: str, status: int
) -> None:
    """Not even for those who had all permissions."""
    settings.UNSTUCK = {"DASHBOARD_POLICY": f"{__name__}.{path}"}

    assert operator.get(pages["letters"]).status_code == status


def test_what_one_may_not_do_is_not_offered(
    viewer: Client, pages: dict[str, str]
) -> None:
    """No link to an act, no checkbox."""
    for name in ("overview", "letters", "letters_groups", "letters_one"):
        text = viewer.get(pages[name]).content.decode()
        assert "/replay/" not in text
        assert "/purge/" not in text
        assert "/edit/" not in text
        assert 'type="checkbox"' not in text


def test_the_navigation_has_what_one_may_see(login: Login) -> None:
    """And nothing else."""
    text = login("view_node").get(reverse("unstuck:overview")).content.decode()

    assert reverse("unstuck:workers") in text
    assert reverse("unstuck:letters") not in text
    assert reverse("unstuck:audit") not in text
