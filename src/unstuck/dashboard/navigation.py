"""The pages in the navigation: a new page adds a line here and one in ``urls``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from unstuck.dashboard.access import Viewer

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise


@dataclass(frozen=True, slots=True)
class Item:
    """A page that the navigation leads to."""

    name: str
    """Of its URL; those that begin with it belong to the same page."""
    label: _StrPromise
    permission: str = ""
    """Whoever lacks it does not see the item; the view itself asks as well."""


ITEMS = (
    Item("overview", _("Overview")),
    Item("tasks", _("Tasks"), "unstuck.view_taskrun"),
    Item("letters", _("Dead letters"), "unstuck.view_deadletter"),
    Item("incidents", _("Incidents"), "unstuck.view_incident"),
    Item("workers", _("Workers"), "unstuck.view_node"),
    Item("running", _("Running"), "unstuck.view_taskrun"),
    Item("planned", _("Scheduled and retries"), "unstuck.view_taskrun"),
    Item("queues", _("Queues"), "unstuck.view_node"),
    Item("periodic", _("Periodic"), "unstuck.view_node"),
    Item("locks", _("Locks"), "unstuck.view_taskrun"),
    Item("audit", _("Audit"), "unstuck.view_auditentry"),
)


@dataclass(frozen=True, slots=True)
class Link:
    """An item as somebody sees it from a page."""

    label: _StrPromise
    url: str
    is_current: bool


def links(viewer: Viewer, current: str) -> list[Link]:
    """The items that this viewer may follow."""
    return [
        Link(item.label, reverse(f"unstuck:{item.name}"), current.startswith(item.name))
        for item in ITEMS
        if not item.permission or viewer.may(item.permission)
    ]
