"""Rules for the values of settings: types, addresses, and what lives in packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from celery.app.backends import BACKEND_ALIASES
from celery.app.defaults import NAMESPACES, flatten
from django.apps import apps
from kombu.transport import TRANSPORT_ALIASES
from kombu.utils.url import url_to_parts

from unstuck.checks import known
from unstuck.checks.kinds import is_number
from unstuck.checks.limits import RULES as IN_PROFILE
from unstuck.checks.rule import Found, found, rule
from unstuck.checks.view import Project, shown
from unstuck.configuration import BROKER_OPTIONS, MISSING

Fits = Callable[[Any], bool]


def _is_list(value: Any) -> bool:
    return not isinstance(value, (str, bytes, Mapping)) and hasattr(value, "__iter__")


BY_TYPE: Mapping[Any, tuple[Fits, str]] = {
    "bool": (lambda value: value in (0, 1), "True or False"),
    "int": (is_number, "a number"),
    int: (is_number, "a number"),
    "float": (
        lambda value: is_number(value) or isinstance(value, timedelta),
        "a number",
    ),
    "dict": (lambda value: isinstance(value, Mapping), "a dict"),
    "tuple": (_is_list, "a list or a tuple"),
    "list": (_is_list, "a list or a tuple"),
}
"""What a value must be, by the type that Celery names for its setting."""

EXCEPT: Mapping[str, Fits] = {
    "broker_use_ssl": lambda value: isinstance(value, (bool, Mapping)),
    "redis_backend_use_ssl": lambda value: isinstance(value, (bool, Mapping)),
    "task_queues": lambda value: isinstance(value, Mapping) or _is_list(value),
    "database_table_schemas": lambda _: True,
    "database_table_names": lambda _: True,
    "cassandra_servers": lambda _: True,
    "broker_port": lambda _: True,
    "redis_port": lambda _: True,
    "redis_db": lambda _: True,
}
"""Settings that take more than the type that Celery names."""

BROKER_URLS = ("broker_url", "broker_read_url", "broker_write_url")

NEEDS_APP = {
    "django-db": "django_celery_results",
    "django-cache": "django_celery_results",
    "django_celery_results.": "django_celery_results",
    "django_celery_beat.": "django_celery_beat",
}
"""Values that begin so are of a Django app that must be installed."""


@rule(
    "E021",
    title="a value of the wrong type",
    says="{shown} must be {wanted}, and is of type {type}.",
    remedy="Convert it, or remove it for the default {default!r}.",
)
def values_of_the_wrong_type(project: Project) -> Iterator[Found]:
    """E021: of a setting that has no safe default of ours (those are E005's)."""
    for name, option in sorted(flatten(NAMESPACES)):
        if name in IN_PROFILE or name == BROKER_OPTIONS or option.type not in BY_TYPE:
            continue
        value = project.given(name)
        fits, wanted = BY_TYPE[option.type]
        if value in (MISSING, None) or EXCEPT.get(name, fits)(value):
            continue
        yield found(
            project.spelled(name),
            shown=f"{project.spelled(name)} = {shown(value, name)}",
            wanted=wanted,
            type=type(value).__name__,
            default=option.default,
        )


@rule(
    "E024",
    title="an address of a broker or a result store that cannot be one",
    says="{key} = {url}: {problem}.",
    remedy="Write it as SCHEME://USER:PASSWORD@HOST:PORT/NAME, such as {example}.",
)
def addresses_that_cannot_be(project: Project) -> Iterator[Found]:
    """E024: it would be a traceback at the first ``.delay()``, or another host."""
    for name in BROKER_URLS:
        value = getattr(project.conf, name)
        if name != "broker_url" and value == project.conf.broker_url:
            continue
        for url in _split(value):
            if problem := _problem_with_broker(url):
                yield _address(project, name, url, problem, "redis://127.0.0.1:6379/0")
    store = project.conf.result_backend
    if isinstance(store, str) and "://" in store:
        schemes = {*BACKEND_ALIASES, *project.app.loader.override_backends}
        if problem := _problem_with(store, schemes, "result store"):
            example = "redis://127.0.0.1:6379/1"
            yield _address(project, "result_backend", store, problem, example)


@rule(
    "E025",
    title="options of the broker's transport that it does not know, or cannot use",
    says="{key} = {value}{problem}.",
    remedy="{remedy}",
)
def transport_options_that_cannot_be(project: Project) -> Iterator[Found]:
    """E025: kombu drops an option that it does not know without a word."""
    own = project.given(BROKER_OPTIONS)
    key = project.spelled(BROKER_OPTIONS)
    if own is MISSING or own is None:
        return
    if not isinstance(own, Mapping):
        problem, remedy = " must be a dict", "Write it as {'visibility_timeout': 3600}."
        yield found(key, key=key, value=shown(own), problem=problem, remedy=remedy)
        return
    names = _options_of(project)
    for option, value in own.items():
        meant = known.meant(str(option), names) if option not in names else ""
        one = f"{key}[{option!r}]"
        if meant:
            problem = " is no option of this transport: it is dropped"
            remedy = f"Did you mean {meant!r}?"
        elif str(option).endswith(("_timeout", "_interval")) and isinstance(value, str):
            problem, remedy = " must be a number of seconds", "Convert it by float()."
        else:
            continue
        yield found(key, key=one, value=shown(value), problem=problem, remedy=remedy)


@rule(
    "E028",
    title="a setting that needs a Django app which is not installed",
    says='{shown} needs "{app}", which is not in INSTALLED_APPS.',
    remedy='Add "{app}" to INSTALLED_APPS and run `manage.py migrate {app}`.',
)
def values_of_apps_that_are_missing(project: Project) -> Iterator[Found]:
    """E028: results or schedules in the database, without their tables."""
    for name in ("result_backend", "cache_backend", "beat_scheduler"):
        value = getattr(project.conf, name)
        for begin, app in NEEDS_APP.items():
            if str(value).startswith(begin) and not apps.is_installed(app):
                key = project.spelled(name)
                shown_here = f"{key} = {shown(value)}"
                yield found(key, shown=shown_here, app=app)


def _split(value: Any) -> Iterator[Any]:
    if isinstance(value, str):
        yield from value.split(";")
    elif isinstance(value, (list, tuple)):
        yield from value
    elif value is not None:
        yield value


def _problem_with_broker(url: Any) -> str:
    if not isinstance(url, str):
        return f"an address is a text, and this is of type {type(url).__name__}"
    if url == "":
        return ""
    if "://" not in url and url in TRANSPORT_ALIASES:
        return ""
    return _problem_with(url, set(TRANSPORT_ALIASES), "broker")


def _problem_with(url: str, schemes: set[str], what: str) -> str:
    scheme, separator, _ = url.partition("://")
    if not separator:
        return "it has no SCHEME://, so all of it is taken for the name of a host"
    if scheme not in schemes and scheme.partition("+")[0] not in schemes:
        meant = known.meant(scheme, schemes, cutoff=0.7)
        ask = f", did you mean {meant}://?" if meant else ""
        return f"no {what} is reached by {scheme}://{ask}"
    try:
        url_to_parts(url)
    except ValueError as error:
        return f"it cannot be read ({error})"
    return ""


def _address(
    project: Project, name: str, url: Any, problem: str, example: str
) -> Found:
    key = project.spelled(name)
    return found(key, key=key, url=shown(url, name), problem=problem, example=example)


def _options_of(project: Project) -> frozenset[str]:
    if project.is_amqp:
        return known.AMQP_OPTIONS
    scheme = project.broker
    if any(part in scheme for part in ("redis", "sentinel", "valkey", "unstuck")):
        return known.REDIS_OPTIONS
    return frozenset()
