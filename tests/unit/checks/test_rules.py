"""Each rule on a project where it has something to say, and on one where it has not."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from celery.schedules import crontab
from kombu import Queue

from tests.unit.checks import samples
from tests.unit.checks.rules import Site, found_by

S = samples
REDIS = {"BROKER_URL": "redis://127.0.0.1:1/0"}
STREAMS = {"BROKER_URL": "unstuck+redis://127.0.0.1:1/0"}
SQS = {"BROKER_URL": "sqs://"}
POSTGRESQL = {"ENGINE": "django.db.backends.postgresql", "NAME": "shop"}
TOPOLOGY = {"TASK_QUEUES": [Queue("celery"), Queue("media")]}


def task(function: Any = S.plain, **options: Any) -> Site:
    """A project with one task."""
    return Site(tasks=[(function, options)])


def beat(entry: Any, *, options: dict[str, Any] | None = None, **celery: Any) -> Site:
    """A project with one beat entry, and a task for it."""
    settings = {"BEAT_SCHEDULE": {"nightly": entry}, **celery}
    return Site(celery=settings, tasks=[(S.plain, options or {})])


def every(schedule: Any, **entry: Any) -> dict[str, Any]:
    return {"task": "sample.plain", "schedule": schedule, **entry}


def database(**options: Any) -> dict[str, Any]:
    return {"DATABASES": {"default": {**POSTGRESQL, **options}}}


def settings(**celery: Any) -> Site:
    return Site(celery=celery)


FIRING: list[tuple[str, Site, str, str]] = [
    # The rule, the project, what the message shows of it, and a word of the remedy.
    ("E008", task(lock="report", on_busy="skipp"), "on_busy='skipp'", "docs/locks.md"),
    ("E013", Site(django={"USE_TZ": False}), "USE_TZ = False", "TIME_ZONE stays"),
    (
        "E020",
        settings(TASK_TIME_LIMT=60),
        "CELERY_TASK_TIME_LIMT = 60",
        "CELERY_TASK_TIME_LIMIT?",
    ),
    (
        "E020",
        settings(TASK_ACK_LATE=True),
        "CELERY_TASK_ACK_LATE = True",
        "CELERY_TASK_ACKS_LATE?",
    ),
    (
        "E020",
        settings(MAX_RETRIES=4),
        "CELERY_MAX_RETRIES = 4",
        "CELERY_TASK_MAX_RETRIES?",
    ),
    (
        "E020",
        settings(TASK_TIMEOUT=60),
        "CELERY_TASK_TIMEOUT = 60",
        "CELERY_TASK_TIME_LIMIT?",
    ),
    (
        "E020",
        Site(changes={"task_acks_latee": True}),
        "task_acks_latee = True",
        "task_acks_late?",
    ),
    (
        "E020",
        settings(BROKER_PASWORD="s3cret"),
        "CELERY_BROKER_PASWORD",
        "CELERY_BROKER_PASSWORD?",
    ),
    ("W021", settings(SHOP_MODE="x"), "CELERY_SHOP_MODE = 'x'", "Remove it"),
    (
        "W022",
        settings(SEND_TASK_ERROR_EMAILS=True),
        "CELERY_SEND_TASK_ERROR_EMAILS = True",
        "Remove it",
    ),
    (
        "E021",
        settings(TASK_ALWAYS_EAGER="False"),
        "CELERY_TASK_ALWAYS_EAGER = 'False'",
        "default False",
    ),
    (
        "E021",
        settings(RESULT_EXPIRES="3600"),
        "CELERY_RESULT_EXPIRES = '3600' must be a number",
        "Convert",
    ),
    (
        "E021",
        settings(IMPORTS="shop.trouble"),
        "CELERY_IMPORTS = 'shop.trouble' must be a list",
        "Convert",
    ),
    ("E021", settings(ACCEPT_CONTENT="json"), "CELERY_ACCEPT_CONTENT = 'json'", "json"),
    (
        "E021",
        settings(BEAT_SCHEDULE=[]),
        "CELERY_BEAT_SCHEDULE = [] must be a dict",
        "default {}",
    ),
    (
        "E022",
        Site(django={"CELERY_TASK_TIME_LIMIT": 60}),
        "CELERY_TASK_TIME_LIMIT = 60",
        "config_from_object",
    ),
    (
        "E024",
        settings(BROKER_URL="rediss//127.0.0.1"),
        "no SCHEME://",
        "redis://127.0.0.1:6379/0",
    ),
    (
        "E024",
        settings(BROKER_URL="reddis://127.0.0.1"),
        "did you mean redis://?",
        "SCHEME://",
    ),
    (
        "E024",
        settings(BROKER_URL="redis://127.0.0.1:port/0"),
        "cannot be read (Port",
        "SCHEME://",
    ),
    ("E024", settings(BROKER_URL=6379), "this is of type int", "SCHEME://"),
    (
        "E024",
        settings(RESULT_BACKEND="reddis://127.0.0.1"),
        "CELERY_RESULT_BACKEND",
        "SCHEME://",
    ),
    (
        "E025",
        settings(**REDIS, BROKER_TRANSPORT_OPTIONS={"visibilty_timeout": 9}),
        "['visibilty_timeout'] = 9",
        "'visibility_timeout'?",
    ),
    (
        "E025",
        settings(**REDIS, BROKER_TRANSPORT_OPTIONS={"socket_timeout": "9"}),
        "['socket_timeout'] = '9' must be",
        "float()",
    ),
    (
        "E025",
        settings(
            BROKER_URL="amqp://h//", BROKER_TRANSPORT_OPTIONS={"confirm_publsh": 1}
        ),
        "confirm_publsh",
        "'confirm_publish'?",
    ),
    (
        "E025",
        settings(**REDIS, BROKER_TRANSPORT_OPTIONS="x"),
        "= 'x' must be a dict",
        "Write it as",
    ),
    (
        "E026",
        task(time_limit="60"),
        "time_limit='60', which must be a number",
        "leave it out",
    ),
    ("E026", task(soft_time_limit="60"), "soft_time_limit='60'", "leave it out"),
    ("E026", task(max_retries="3"), "max_retries='3'", "leave it out"),
    (
        "E026",
        task(default_retry_delay="60"),
        "default_retry_delay='60'",
        "leave it out",
    ),
    (
        "E026",
        task(max_strikes=0),
        "max_strikes=0, which must be a whole number above 0",
        "leave it out",
    ),
    ("E026", task(rate_limit="10/x"), "rate_limit='10/x'", "leave it out"),
    ("E027", task(max_retires=3), "max_retires=3", "max_retries?"),
    ("E027", task(timeout=3), "timeout=3", "time_limit?"),
    ("W023", task(time_limit=0), "time_limit=0", "Leave it out"),
    ("E029", task(S.selfish), "has a first parameter self", "bind=True"),
    ("E029", task(S.nobody, bind=True), "has bind=True", "Add self"),
    (
        "E028",
        settings(RESULT_BACKEND="django-db"),
        '"django_celery_results"',
        "INSTALLED_APPS",
    ),
    (
        "E028",
        settings(BEAT_SCHEDULER="django_celery_beat.schedulers:DatabaseScheduler"),
        '"django_celery_beat"',
        "migrate",
    ),
    (
        "E030",
        settings(TASK_SERIALIZER="yaml"),
        "CELERY_TASK_SERIALIZER = 'yaml'",
        "Add 'yaml'",
    ),
    ("E030", settings(TASK_SERIALIZER="jsn"), "'jsn'", "JSON"),
    (
        "E030",
        settings(RESULT_SERIALIZER="pickle", RESULT_BACKEND="rpc://"),
        "every result is refused",
        "Add 'pickle'",
    ),
    (
        "E030",
        task(serializer="yaml"),
        "sample.plain has serializer='yaml'",
        "Add 'yaml'",
    ),
    (
        "E031",
        Site(
            {**TOPOLOGY, "TASK_CREATE_MISSING_QUEUES": False},
            [(S.plain, {"queue": "mdia"})],
        ),
        "'mdia'",
        "Add it",
    ),
    (
        "W042",
        Site(TOPOLOGY, [(S.plain, {"queue": "mdia"})]),
        "sample.plain sends to the queue 'mdia'",
        "-Q mdia",
    ),
    (
        "W042",
        settings(**TOPOLOGY, TASK_ROUTES={"sample.*": {"queue": "slow"}}),
        "'slow'",
        "-Q slow",
    ),
    (
        "W042",
        Site({"TASK_QUEUES": [Queue("media")]}, [(S.plain, {})]),
        "CELERY_TASK_DEFAULT_QUEUE = 'celery'",
        "-Q celery",
    ),
    (
        "E031",
        Site(
            {"TASK_QUEUES": [Queue("media")], "TASK_CREATE_MISSING_QUEUES": False},
            [(S.plain, {"queue": "media"})],
        ),
        "CELERY_TASK_DEFAULT_QUEUE = 'celery'",
        "Add it",
    ),
    (
        "E032",
        beat({"task": "sample.plane", "schedule": 9}),
        "'sample.plane'",
        "Did you mean 'sample.plain'?",
    ),
    (
        "E032",
        beat(
            {"task": "billing.close", "schedule": 9},
            TASK_ROUTES={"mail.*": "mail", "billing.*": {"rate_limit": 9}},
        ),
        "'billing.close'",
        "import the task",
    ),
    ("E033", beat({"task": "sample.plain"}), "schedule = None", "Correct it"),
    ("E033", beat(every("9")), "schedule = '9'", "Correct it"),
    ("E033", beat(every(9, args=("abc"))), "args = 'abc'", "('abc',), with a comma"),
    ("W044", beat(every(30.0), options={"time_limit": 60}), "every 30 s", "lock"),
    (
        "W044",
        beat(every(crontab(minute="*/5")), options={"time_limit": 900}),
        "every 300 s",
        "'expires': 300",
    ),
    (
        "W044",
        beat(every(crontab(minute="0,50", hour=3)), options={"time_limit": 3600}),
        "every 3000 s",
        "'expires': 3000",
    ),
    (
        "W044",
        beat(every(crontab(minute="0,50", hour="3,4")), options={"time_limit": 900}),
        "every 600 s",
        "'expires': 600",
    ),
    (
        "W044",
        beat(every(crontab(minute=10, hour="0,22")), options={"time_limit": 7200}),
        "every 7200 s",
        "'expires': 7200",
    ),
    ("W045", beat(every(timedelta(minutes=1))), "'nightly'", "'expires'"),
    ("W045", beat(every(crontab(minute=0))), "'nightly'", "'expires'"),
    ("W045", beat(every(crontab(minute="0,30", hour="9-17"))), "'nightly'", "expires"),
    (
        "W046",
        beat(every(crontab(hour=3, minute=0)), TIMEZONE="Europe/Berlin"),
        "'Europe/Berlin'",
        "Remove CELERY_TIMEZONE",
    ),
    ("E034", task(S.waits_at_once), "pay.delay().get()", "Chain them"),
    ("E034", task(S.waits_by_name), "result.get()", "chord"),
    ("E034", task(S.waits_for_many), "group()().get()", "Chain them"),
    ("E034", task(S.waits_by_id), "AsyncResult().get()", "Chain them"),
    ("W060", task(S.waits_as_allowed), "pay.delay().get()", "Chain them"),
    ("W060", task(S.waits_with_leave), "pay.delay().get()", "Chain them"),
    ("E036", task(S.joins), "calls chord", "CELERY_RESULT_BACKEND"),
    (
        "W025",
        settings(WORKER_POOL="gevent"),
        "CELERY_WORKER_POOL = 'gevent'",
        "threads",
    ),
    (
        "W026",
        Site({"WORKER_PREFETCH_MULTIPLIER": 4}, [(S.plain, {})]),
        "CELERY_WORKER_PREFETCH_MULTIPLIER = 4",
        "default of 1",
    ),
    (
        "W026",
        Site({"WORKER_PREFETCH_MULTIPLIER": 0}, [(S.plain, {})]),
        "all there is",
        "default of 1",
    ),
    (
        "W027",
        Site(SQS, [(S.plain, {"time_limit": 3600})]),
        "time_limit=3600, and the broker gives a message to another worker after 1800 s",
        "CELERY_BROKER_TRANSPORT_OPTIONS",
    ),
    (
        "W027",
        settings(**SQS, BROKER_TRANSPORT_OPTIONS={"visibility_timeout": 60}),
        "CELERY_TASK_TIME_LIMIT = 300",
        "raise",
    ),
    (
        "W027",
        settings(**REDIS, WORKER_POOL="solo", TASK_TIME_LIMIT=7200),
        "CELERY_TASK_TIME_LIMIT = 7200",
        "raise",
    ),
    (
        "W028",
        Site(SQS, [(S.retries_later, {"bind": True})]),
        "countdown=7200",
        "unstuck+redis://",
    ),
    (
        "W028",
        Site(SQS, [(S.plain, {"default_retry_delay": 9000})]),
        "default_retry_delay=9000",
        "unstuck+redis://",
    ),
    (
        "W028",
        beat(every(9, options={"countdown": 9999}), **SQS),
        "countdown=9999",
        "unstuck+redis://",
    ),
    (
        "W029",
        settings(**REDIS, BROKER_TRANSPORT_OPTIONS={"visibility_timeout": 5}),
        "['visibility_timeout'] = 5",
        "above 60",
    ),
    (
        "W030",
        settings(TASK_ACKS_ON_TIMEOUT=False),
        "CELERY_TASK_ACKS_ON_TIMEOUT = False",
        "MAX_STRIKES",
    ),
    ("W031", task(max_strikes=50), "max_strikes=50", "Use 3"),
    (
        "W031",
        Site(django={"UNSTUCK": {"MAX_STRIKES": 99}}),
        "UNSTUCK['MAX_STRIKES'] = 99",
        "Use 3",
    ),
    (
        "W032",
        Site(STREAMS, django={"UNSTUCK": {"LEASE_SECONDS": 0.5}}),
        "UNSTUCK['LEASE_SECONDS'] = 0.5",
        "from 2 to 60",
    ),
    (
        "W032",
        Site(STREAMS, django={"UNSTUCK": {"LEASE_SECONDS": 900}}),
        "UNSTUCK['LEASE_SECONDS'] = 900",
        "from 2 to 60",
    ),
    (
        "W033",
        Site({"TASK_TIME_LIMIT": None}, [(S.plain, {})]),
        "CELERY_TASK_TIME_LIMIT = None: sample.plain",
        "300",
    ),
    (
        "W034",
        task(autoretry_for=(Exception,)),
        "autoretry_for=(Exception,)",
        "dont_autoretry_for",
    ),
    (
        "W035",
        task(autoretry_for=(OSError,), default_retry_delay=1),
        "every 1 s",
        "retry_backoff=True",
    ),
    (
        "W036",
        task(autoretry_for=(OSError,), retry_backoff=3600),
        "retry_backoff=3600, which is cut to 600",
        "above 3600",
    ),
    (
        "W036",
        task(autoretry_for=(OSError,), retry_backoff=5, retry_backoff_max=0),
        "cut to 0 s by retry_backoff_max.",
        "above 5",
    ),
    (
        "W037",
        task(S.retries_for_ever, bind=True),
        "self.retry(max_retries=None)",
        "give a number",
    ),
    (
        "W038",
        settings(RESULT_BACKEND="redis://127.0.0.1:1/1", RESULT_EXPIRES=None),
        "CELERY_RESULT_EXPIRES = None",
        "a day",
    ),
    ("W039", settings(ACCEPT_CONTENT=["json", "pickle"]), "'pickle'", "JSON"),
    ("W039", task(serializer="pickle"), "serializer='pickle'", "JSON"),
    (
        "W041",
        Site({"TASK_ROUTES": {"sample.plane": "media"}}, [(S.plain, {})]),
        "'sample.plane'",
        "Correct",
    ),
    (
        "W041",
        Site({"TASK_ROUTES": [("sample.video.*", "media")]}, [(S.plain, {})]),
        "'sample.video.*'",
        "Correct",
    ),
    (
        "W047",
        settings(BROKER_CONNECTION_RETRY=False),
        "CELERY_BROKER_CONNECTION_RETRY = False",
        "ON_STARTUP = False",
    ),
    (
        "W048",
        settings(TASK_ALWAYS_EAGER=True),
        "CELERY_TASK_ALWAYS_EAGER = True",
        "tests only",
    ),
    (
        "W050",
        settings(BROKER_CONNECTION_TIMEOUT=None),
        "CELERY_BROKER_CONNECTION_TIMEOUT = None",
        "number of seconds",
    ),
    (
        "W050",
        settings(**REDIS, BROKER_TRANSPORT_OPTIONS={"socket_timeout": None}),
        "['socket_timeout'] = None",
        "number of seconds",
    ),
    (
        "W050",
        settings(RESULT_BACKEND="redis://127.0.0.1:1/1", REDIS_SOCKET_TIMEOUT=None),
        "CELERY_REDIS_SOCKET_TIMEOUT = None",
        "number of seconds",
    ),
    ("W051", task(S.deaf), "samples.py:", "SoftTimeLimitExceeded"),
    ("W052", task(S.asks), "urllib.request.urlopen without a timeout", "timeout="),
    ("W053", task(S.sleeps_long), "sleeps for 600 s", "countdown=600"),
    (
        "W054",
        task(S.charges),
        "stripe.Charge.create without idempotency_key",
        "Pass idempotency_key",
    ),
    (
        "W054",
        task(S.mails_all),
        "django.core.mail.send_mail in a loop",
        "acks_late=False",
    ),
    (
        "W055",
        settings(DB_REUSE_MAX=50),
        "CELERY_DB_REUSE_MAX = 50",
        "Remove it",
    ),
    (
        "W056",
        Site(tasks=[(S.plain, {})], django=database(ATOMIC_REQUESTS=True)),
        "ATOMIC_REQUESTS = True",
        "on_commit",
    ),
    (
        "W057",
        Site(
            {"TASK_ANNOTATIONS": {"sample.plane": {"rate_limit": 1}}}, [(S.plain, {})]
        ),
        "['sample.plane']",
        "Correct the name",
    ),
    (
        "E038",
        Site(django=database(CONN_MAX_AGE=None, OPTIONS={"pool": True})),
        "CONN_MAX_AGE = None",
        "Remove CONN_MAX_AGE",
    ),
]

SILENT: list[tuple[str, Site]] = [
    ("E008", task(lock="report", lock_wait=5, lock_lease=60, on_busy="skip")),
    ("E013", Site(django={"USE_TZ": True})),
    ("E030", settings(RESULT_SERIALIZER="pickle")),
    ("E020", Site({"TASK_TIME_LIMIT": 60}, namespace=None)),
    ("W021", Site({"TASK_TIME_LIMIT": 60}, namespace=None)),
    (
        "E020",
        settings(
            TASK_TIME_LIMIT=60,
            ACKS_LATE=True,
            REDBEAT_LOCK_TIMEOUT=3,
            ONCE={},
            MAX_CACHED_RESULTS=1,
        ),
    ),
    ("E022", settings(TASK_TIME_LIMIT=60)),
    ("W021", settings(TASK_MAX_RETRIES=3, TASK_PUBLISH="on_commit")),
    ("W022", settings(TASK_TIME_LIMIT=60)),
    (
        "E021",
        settings(
            TASK_ALWAYS_EAGER=False,
            RESULT_EXPIRES=timedelta(hours=1),
            IMPORTS=["a"],
            TASK_QUEUES=[],
            BROKER_USE_SSL={"a": 1},
            TIMEZONE="UTC",
        ),
    ),
    (
        "E024",
        settings(
            BROKER_URL="redis://:p%40ss@a:1/0;redis://b:1/0", RESULT_BACKEND="rpc://"
        ),
    ),
    (
        "E024",
        settings(
            BROKER_URL=["amqp://a//", "amqp://b//"], RESULT_BACKEND="db+sqlite:///x"
        ),
    ),
    ("E024", settings(**STREAMS, RESULT_BACKEND="cache+memcached://127.0.0.1:1/")),
    (
        "E025",
        settings(
            **REDIS, BROKER_TRANSPORT_OPTIONS={"visibility_timeout": 9, "own_thing": 1}
        ),
    ),
    ("E025", settings(**STREAMS, BROKER_TRANSPORT_OPTIONS={"global_keyprefix": "x"})),
    (
        "E026",
        task(
            time_limit=60,
            max_retries=None,
            max_strikes=1,
            rate_limit="10/m",
            autoretry_for=(OSError,),
            retry_backoff=True,
        ),
    ),
    (
        "E027",
        task(
            time_limit=60,
            autoretry_for=(OSError,),
            retry_kwargs={},
            queue="x",
            team="billing",
        ),
    ),
    ("W023", task(time_limit=60)),
    ("E028", settings(RESULT_BACKEND="redis://127.0.0.1:1/1")),
    ("E029", Site(tasks=[(S.selfish, {"bind": True}), (S.plain, {})])),
    ("E029", task(S.helped)),
    ("E026", Site(tasks=[(S.plain, {"base": S.Polite})])),
    (
        "E030",
        settings(TASK_SERIALIZER="yaml", ACCEPT_CONTENT=["application/json", "yaml"]),
    ),
    (
        "E031",
        Site(
            {**TOPOLOGY, "TASK_CREATE_MISSING_QUEUES": False},
            [(S.plain, {"queue": "media"})],
        ),
    ),
    ("W042", Site(TOPOLOGY, [(S.plain, {"queue": "media"})])),
    ("W042", task(queue="anything")),
    ("W042", Site({"TASK_QUEUES": [Queue("media")]}, [(S.plain, {"queue": "media"})])),
    (
        "W042",
        Site(
            {"TASK_QUEUES": [Queue("media")], "TASK_ROUTES": {"*": "media"}},
            [(S.plain, {})],
        ),
    ),
    ("E032", beat(every(9))),
    (
        "E032",
        beat({"task": "others.plain", "schedule": 9, "options": {"queue": "others"}}),
    ),
    *(
        ("E032", beat({"task": "billing.close", "schedule": 9}, TASK_ROUTES=routes))
        for routes in (
            {"billing.*": {"queue": "billing"}},
            {"billing.close": "billing"},
            {re.compile(r"(billing|mail)\.\w+"): {"queue": Queue("billing")}},
            [[("billing.*", {"queue": "billing"})]],
            lambda *_, **__: "billing",
            ["billing.routes.route"],
        )
    ),
    ("E033", beat(every(crontab(), args=["a"], kwargs={}, options={}))),
    ("W044", beat(every(90.0), options={"time_limit": 60})),
    ("W044", beat(every(30.0, options={"expires": 30}), options={"time_limit": 60})),
    ("W044", beat(every(30.0))),
    ("W045", beat(every(60, options={"expires": 60}))),
    ("W044", beat(every(crontab(minute="0,50", hour=3)), options={"time_limit": 900})),
    ("W044", beat(every(crontab(minute=0, hour=3)), options={"time_limit": 7200})),
    ("W045", beat(every(crontab(hour=3, minute=0)))),
    ("W045", beat(every(crontab(hour=3, minute="0,30")))),
    (
        "W046",
        Site(
            {"BEAT_SCHEDULE": {"n": every(crontab(hour=3))}},
            [(S.plain, {})],
            {"TIME_ZONE": "Asia/Seoul"},
        ),
    ),
    ("W046", beat(every(crontab(minute=3)), TIMEZONE="Europe/Berlin")),
    ("E034", Site(tasks=[(S.sends, {}), (S.reuses_a_name, {})])),
    ("E034", task(S.waits_as_allowed)),
    ("W060", task(S.waits_at_once)),
    ("E036", task(S.groups)),
    ("E036", Site({"RESULT_BACKEND": "redis://127.0.0.1:1/1"}, [(S.joins, {})])),
    ("W025", settings(WORKER_POOL="threads")),
    ("W026", task()),
    ("W027", Site(REDIS, [(S.plain, {"time_limit": 7200})])),
    ("W027", settings(**SQS)),
    ("W028", Site(REDIS, [(S.retries_later, {"bind": True})])),
    ("W028", Site(SQS, [(S.retries_soon, {"bind": True})])),
    ("W029", settings(**REDIS, BROKER_TRANSPORT_OPTIONS={"visibility_timeout": 3600})),
    ("W030", settings(TASK_ACKS_LATE=False)),
    ("W031", task(max_strikes=2)),
    ("W032", Site(STREAMS, django={"UNSTUCK": {"LEASE_SECONDS": 10}})),
    ("W032", Site(REDIS, django={"UNSTUCK": {"LEASE_SECONDS": 0.5}})),
    ("W033", Site({"TASK_TIME_LIMIT": None}, [(S.plain, {"time_limit": 60})])),
    ("W034", task(autoretry_for=(Exception,), dont_autoretry_for=(ValueError,))),
    ("W034", task(autoretry_for=(OSError,))),
    ("W035", task(autoretry_for=(OSError,))),
    ("W035", task(autoretry_for=(OSError,), default_retry_delay=1, retry_backoff=True)),
    ("W036", task(retry_backoff=3600, retry_backoff_max=7200)),
    ("W037", task(S.retries_soon, bind=True)),
    ("W038", settings(RESULT_BACKEND="redis://127.0.0.1:1/1")),
    ("W038", settings(RESULT_EXPIRES=None)),
    ("W039", settings(ACCEPT_CONTENT=["json", "msgpack"])),
    (
        "W041",
        Site(
            {"TASK_ROUTES": {"sample.*": "media", "others.x": "media"}}, [(S.plain, {})]
        ),
    ),
    (
        "W047",
        settings(
            BROKER_CONNECTION_RETRY=False, BROKER_CONNECTION_RETRY_ON_STARTUP=True
        ),
    ),
    ("W048", settings()),
    ("W050", settings(**REDIS, BROKER_TRANSPORT_OPTIONS={"visibility_timeout": 9})),
    ("W051", Site(tasks=[(S.hears, {}), (S.gives_up, {})])),
    ("W052", task(S.asks_in_time)),
    ("W053", task(S.sleeps)),
    (
        "W054",
        Site(
            tasks=[(S.charges_once, {}), (S.charges_with_care, {}), (S.mails_one, {})]
        ),
    ),
    ("W054", task(S.charges, acks_late=False)),
    ("W055", Site(django=database(CONN_MAX_AGE=60))),
    ("E038", Site(django=database(CONN_MAX_AGE=60))),
    (
        "W056",
        Site(
            {"TASK_PUBLISH": "on_commit"},
            [(S.plain, {})],
            database(ATOMIC_REQUESTS=True),
        ),
    ),
    (
        "W057",
        Site(
            {
                "TASK_ANNOTATIONS": {
                    "sample.plain": {"rate_limit": 1},
                    "*": {"rate_limit": 1},
                }
            },
            [(S.plain, {})],
        ),
    ),
    ("E038", Site(django=database(OPTIONS={"pool": True}))),
    ("E021", settings(REDIS_DB="1", BROKER_PORT="5672")),
    ("E034", Site({"WORKER_POOL": "gevent"}, [(S.waits_at_once, {})])),
]


@pytest.mark.parametrize(
    ("number", "site", "value", "remedy"),
    FIRING,
    ids=[f"{case[0]}-{index}" for index, case in enumerate(FIRING)],
)
def test_a_rule_says_the_value_and_the_remedy(
    number: str, site: Site, value: str, remedy: str
) -> None:
    """And where the documentation has more."""
    found = found_by(number, site)

    assert {message.id for message in found} == {f"unstuck.{number}"}
    text = "\n".join(message.msg for message in found)
    hint = "\n".join(str(message.hint) for message in found)
    assert value in text
    assert remedy in hint
    assert f"(docs/checks.md#{number.lower()})" in hint


@pytest.mark.parametrize(
    ("number", "site"),
    [
        ("E032", beat({"task": "sample.plane", "schedule": 9})),
        ("W041", Site({"TASK_ROUTES": {"sample.plane": "media"}}, [(S.plain, {})])),
        ("W057", settings(TASK_ANNOTATIONS={"sample.plane": {"rate_limit": 1}})),
    ],
)
def test_a_task_is_not_missed_where_tasks_cannot_be_imported(
    number: str, site: Site
) -> None:
    """W004 says that they cannot; what they would have been nobody knows."""
    assert len(found_by(number, site)) == 1

    assert found_by(number, site, load_error=ImportError("No module")) == []


@pytest.mark.parametrize(
    ("number", "site"),
    SILENT,
    ids=[f"{case[0]}-{index}" for index, case in enumerate(SILENT)],
)
def test_a_rule_is_silent_where_all_is_well(number: str, site: Site) -> None:
    """No false alarm."""
    assert found_by(number, site) == []
