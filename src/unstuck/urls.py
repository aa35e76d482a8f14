"""``path("unstuck/", include("unstuck.urls"))``."""

from django.urls import path, reverse_lazy
from django.views.generic import RedirectView

app_name = "unstuck"

urlpatterns = [
    path(
        "",
        RedirectView.as_view(
            url=reverse_lazy("admin:unstuck_deadletter_changelist"), permanent=False
        ),
        name="home",
    ),
]
