"""People who look at the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from unstuck import Celery, remote
from unstuck.locks import backends
from unstuck.locks.backend import Backend, Held, Owner

LOOKS = (
    "view_deadletter",
    "view_taskrun",
    "view_incident",
    "view_node",
    "view_auditentry",
)

Login = Callable[..., Client]


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """No node is there to be waited for."""
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.05)


@pytest.fixture
def login(client: Client) -> Login:
    """Log somebody of the staff in, with these permissions and no others."""

    def as_staff(*permissions: str, is_staff: bool = True) -> Client:
        user = User.objects.create_user("olga", is_staff=is_staff)
        found = Permission.objects.filter(codename__in=permissions)
        user.user_permissions.set(found)
        client.force_login(user)
        return client

    return as_staff


@pytest.fixture
def viewer(login: Login) -> Client:
    """Sees all pages and no arguments."""
    return login(*LOOKS)


@pytest.fixture
def operator(login: Login) -> Client:
    """Sees and does everything."""
    return login(*LOOKS, "operate", "view_payload")


HOLDER = Owner(
    token="1",
    born=1.0,
    pid=4711,
    node="celery@w1",
    task_id="5f1c",
    task_name="shop.run",
)
WAITER = Owner(token="2", born=2.0, pid=4712, node="web-1")


@pytest.fixture
def locks(app: Celery) -> Iterator[Backend]:
    """What keeps the locks: the database, as the broker is no Redis."""
    backends.use(None)
    yield backends.current()
    backends.use(None)


@pytest.fixture
def held(locks: Backend) -> Held:
    """A lock that a task holds and a web process waits for."""
    locks.take("report:42", HOLDER, 30)
    locks.take("report:42", WAITER, 30, waits=True)
    return locks.all_held()[0]
