"""The shop, its trouble page, the admin and unstuck's own pages."""

from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles.views import serve as serve_static
from django.urls import include, path
from django.views.static import serve as serve_file

urlpatterns = [
    path("", include("shop.urls")),
    path("admin/", admin.site.urls),
    path("unstuck/", include("unstuck.urls")),
    # One process serves everything, whatever server runs it and with DEBUG off.
    # In front of a real shop stands a web server that serves these files.
    path("static/<path:path>", serve_static, {"insecure": True}),
    path(
        "media/<path:path>",
        serve_file,
        {"document_root": settings.MEDIA_ROOT},
        name="media",
    ),
]
