"""Settings of the example shop; everything that varies comes from the environment.

``SHOP_DATA_DIR``        where the database and the files live (default: here)
``DATABASE_URL``         ``postgres://user:password@host:port/name``, else SQLite
``CELERY_BROKER_URL``    default ``redis://127.0.0.1:6379/0``
``CELERY_RESULT_BACKEND`` default: the broker when it is a Redis, else none
``SHOP_RECEIVER_PORT``   where ``manage.py receiver`` listens (default 8001)
``SHOP_DEBUG``           ``1`` for Django's error pages
"""

import os
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("SHOP_DATA_DIR") or BASE_DIR).resolve()
DATA_DIR.mkdir(parents=True, exist_ok=True)

# This key signs the sessions of a demo on the loopback and of nothing else.
SECRET_KEY = "example-shop-on-loopback-only"  # noqa: S105
DEBUG = os.environ.get("SHOP_DEBUG") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "unstuck",
    "shop",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "proj.urls"
WSGI_APPLICATION = "proj.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


def postgresql(url: str) -> dict[str, object]:
    """Return Django's settings for ``postgres://user:password@host:port/name``."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        message = (
            f"DATABASE_URL starts with {parts.scheme!r}; the shop knows postgres://"
        )
        raise ValueError(message)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "OPTIONS": dict(parse_qsl(parts.query)),
    }


def sqlite(path: Path) -> dict[str, object]:
    """Return Django's settings for a SQLite file that several processes write to."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {
            "timeout": 20,
            # A transaction that reads first and writes later cannot wait for the
            # lock, it fails at once; one that takes the lock at its start waits.
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }


def result_backend(broker_url: str) -> str | None:
    """Return the Redis behind *broker_url* as a result backend, or none."""
    url = broker_url.removeprefix("unstuck+")
    return url if url.startswith("redis") else None


DATABASE_URL = os.environ.get("DATABASE_URL")
DATABASES = {
    "default": postgresql(DATABASE_URL)
    if DATABASE_URL
    else sqlite(DATA_DIR / "db.sqlite3"),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
MEDIA_URL = "/media/"
MEDIA_ROOT = DATA_DIR / "media"

# With DEBUG off Django mails its errors to nobody; a demo shows them.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django": {"handlers": ["console"], "level": "WARNING"}},
}

SHOP_RECEIVER_PORT = int(os.environ.get("SHOP_RECEIVER_PORT", "8001"))
SHOP_RECEIVER_URL = f"http://127.0.0.1:{SHOP_RECEIVER_PORT}"

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")
CELERY_RESULT_BACKEND = os.environ.get("CELERY_RESULT_BACKEND") or result_backend(
    CELERY_BROKER_URL
)
CELERY_RESULT_EXPIRES = 3600
CELERY_TIMEZONE = TIME_ZONE
CELERY_IMPORTS = ["shop.trouble"]
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "celerybeat-schedule")
CELERY_BEAT_SCHEDULE = {
    # A real shop would do this once a night.
    "monthly reports": {
        "task": "shop.tasks.refresh_monthly_reports",
        "schedule": 30.0,
        # When no worker runs, the next one builds one report, not a hundred.
        "options": {"expires": 30.0},
    },
}

UNSTUCK = {"UNKNOWN_TASK_PATIENCE_SECONDS": 10}

SILENCED_SYSTEM_CHECKS = [
    # shop.trouble.hang_python_deaf makes this mistake, so that one can see what becomes of it.
    "unstuck.W051",
]
