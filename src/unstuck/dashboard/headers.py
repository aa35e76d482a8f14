"""What every answer of the dashboard says to browsers and proxies."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.http import HttpResponseBase
from django.templatetags.static import static


def secured(response: HttpResponseBase) -> HttpResponseBase:
    """Let nothing but our own files run, nobody frame us, and nothing be stored."""
    headers = {
        "Content-Security-Policy": content_security_policy(),
        "Cache-Control": "no-store, private",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
    for name, value in headers.items():
        response[name] = value
    return response


def content_security_policy() -> str:
    """No inline script or style, and no other host than that of the static files."""
    origin = f"'self'{_other_origin()}"
    return (
        f"default-src 'none'; script-src {origin}; style-src {origin}; "
        f"img-src {origin}; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )


def _other_origin() -> str:
    """Where static files come from, when that is not this host."""
    parts = urlsplit(static("unstuck/dashboard.css"))
    if not parts.netloc:
        return ""
    return f" {parts.scheme}://{parts.netloc}" if parts.scheme else f" {parts.netloc}"
