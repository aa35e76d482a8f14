"""``path("unstuck/", include("unstuck.urls"))``."""

from django.urls import include, path

from unstuck.dashboard.views.metrics import metrics

app_name = "unstuck"

urlpatterns = [
    path("metrics/", metrics, name="metrics"),
    path("", include("unstuck.dashboard.urls")),
]
