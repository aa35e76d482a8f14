"""The URLs of the project that our own tests run in."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("unstuck/", include("unstuck.urls")),
]
