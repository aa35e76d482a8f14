"""Rules that look into the files of a project, and into its modules."""

from __future__ import annotations

import ast
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps

from tests.unit import dead
from tests.unit.checks import samples
from tests.unit.checks.rules import Site, found_by
from unstuck import checks
from unstuck.checks import source
from unstuck.checks.view import Project

PASSWORD = "hunter2"


def module_of(path: Path, **variables: Any) -> types.ModuleType:
    module = types.ModuleType("shop.celery")
    module.__file__ = str(path)
    vars(module).update(variables)
    return module


def test_a_setting_as_a_variable_beside_the_app_is_an_error(tmp_path: Path) -> None:
    """E023 names the variable, its module, and how it is written."""
    module = module_of(tmp_path, task_time_limit=60, CELERY_WORKER_CONCURRENCY=4)

    first, second = found_by("E023", Site(), config_modules=(module,))

    assert first.id == second.id == "unstuck.E023"
    assert "task_time_limit = 60 in shop.celery" in first.msg
    assert "CELERY_TASK_TIME_LIMIT" in str(first.hint)
    assert "CELERY_WORKER_CONCURRENCY = 4" in second.msg


def test_variables_that_are_in_force_or_something_else_are_no_error(
    tmp_path: Path,
) -> None:
    """E023: what is applied, what has no such name, and what is no value."""
    module = module_of(
        tmp_path, task_time_limit=60, timezone="x", task_routes=print, beat_schedule=sys
    )

    assert (
        found_by("E023", Site({"TASK_TIME_LIMIT": 60}), config_modules=(module,)) == []
    )


@pytest.mark.parametrize("name", ["BROKER_URL", "CELERY_BROKER_URL", "broker_url"])
def test_a_variable_of_which_a_setting_is_made_is_no_finding(
    tmp_path: Path, name: str
) -> None:
    """E023, W062: `CELERY_BROKER_URL = BROKER_URL + "/0"`, for example."""
    module = module_of(tmp_path, **{name: "redis://redis:6379"})
    site = Site({"BROKER_URL": "redis://redis:6379/0"})

    assert found_by("E023", site, config_modules=(module,)) == []
    assert found_by("W062", site, config_modules=(module,)) == []


def test_a_setting_that_is_said_under_another_name_is_said(tmp_path: Path) -> None:
    """E023: Celery's own older name counts."""
    module = module_of(tmp_path, task_acks_late=True)

    site = Site({"ACKS_LATE": False})

    assert found_by("E023", site, config_modules=(module,)) == []


def test_a_constant_with_the_name_of_a_setting_is_a_warning(tmp_path: Path) -> None:
    """W062, and no error: it may be the project's own."""
    module = module_of(tmp_path, WORKER_CONCURRENCY=3)

    (message,) = found_by("W062", Site(), config_modules=(module,))

    assert message.id == "unstuck.W062"
    assert "WORKER_CONCURRENCY = 3 in shop.celery" in message.msg
    assert "CELERY_WORKER_CONCURRENCY" in str(message.hint)
    assert found_by("E023", Site(), config_modules=(module,)) == []


def test_a_password_in_the_settings_is_a_warning_that_does_not_repeat_it(
    tmp_path: Path,
) -> None:
    """W040 names file, line, scheme and host."""
    path = tmp_path / "settings.py"
    path.write_text(f'\nURL = env("BROKER", "redis://:{PASSWORD}@cache.shop:6379/0")\n')

    (message,) = found_by("W040", Site(), config_modules=(module_of(path),))

    assert message.id == "unstuck.W040"
    assert f"{path}:2 has" in message.msg
    assert "redis://…@cache.shop" in message.msg
    assert PASSWORD not in f"{message.msg}{message.hint}"
    assert "environment" in str(message.hint)


def test_addresses_without_a_secret_are_no_warning(tmp_path: Path) -> None:
    """W040: no password, one that is put in, and the guest of this machine."""
    path = tmp_path / "settings.py"
    path.write_text(
        'A = "redis://cache.shop:6379/0"\n'
        'B = f"redis://:{password}@cache.shop:6379/0"\n'
        'C = "amqp://guest:guest@localhost//"\n'
        'D = "https://me:secret@shop.example"\n'
    )

    assert found_by("W040", Site(), config_modules=(module_of(path),)) == []


def test_tasks_in_a_file_that_nobody_imports_are_a_warning(tmp_path: Path) -> None:
    """W043 names the file, and the setting to name it in."""
    path = tmp_path / "nightly.py"
    path.write_text(
        "from celery import shared_task\n\n@shared_task\ndef report(): ...\n"
    )

    (message,) = found_by("W043", Site(), files=(str(path),))

    assert message.id == "unstuck.W043"
    assert str(path) in message.msg
    assert "CELERY_IMPORTS" in str(message.hint)


def test_files_that_are_imported_or_have_no_tasks_are_no_warning(
    tmp_path: Path,
) -> None:
    """W043 is silent."""
    path = tmp_path / "views.py"
    path.write_text('"""Here is no @shared_task."""\n')

    assert found_by("W043", Site(), files=(samples.__file__, str(path))) == []


def test_a_task_that_is_sent_within_a_transaction_is_a_warning() -> None:
    """W049 names the line; a call for the commit is none."""
    place = samples.__file__

    (message,) = found_by("W049", Site(), files=(place,))

    first = samples.sent_too_early.__code__.co_firstlineno
    assert message.id == "unstuck.W049"
    assert f"{place}:{first + 2} calls" in message.msg
    assert 'CELERY_TASK_PUBLISH = "on_commit"' in str(message.hint)


def test_with_the_outbox_it_is_no_warning() -> None:
    """W049 is silent where tasks wait for the commit anyway."""
    site = Site({"TASK_PUBLISH": "on_commit"})

    assert found_by("W049", site, files=(samples.__file__,)) == []


def test_one_function_under_two_names_is_a_warning() -> None:
    """W024: its module was imported by two names."""
    code = compile(
        Path(samples.__file__).read_text(), samples.__file__, "exec", dont_inherit=True
    )
    twice = []
    for name in ("sample.tasks", "sample.apps.tasks"):
        space: dict[str, Any] = {"__name__": name}
        exec(code, space)
        twice.append((space["plain"], {"name": f"{name}.plain"}))

    (message,) = found_by("W024", Site(tasks=twice))

    assert message.id == "unstuck.W024"
    assert "sample.tasks.plain is also known as sample.apps.tasks.plain" in message.msg
    assert "name=" in str(message.hint)
    assert found_by("W024", Site(tasks=twice[:1])) == []


def test_unstuck_that_is_not_installed_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """W061: the app is ours, and Django does not know us."""
    assert found_by("W061", Site()) == []
    monkeypatch.setattr(apps, "is_installed", lambda name: name != "unstuck")

    (message,) = found_by("W061", Site())

    assert message.id == "unstuck.W061"
    assert '"unstuck"' in message.msg
    assert "migrate unstuck" in str(message.hint)


def test_calls_have_dotted_names_and_lines() -> None:
    """Imports are resolved; what has no name is a question mark."""
    app = Site(tasks=[(samples.asks_in_time, {}), (samples.waits_at_once, {})]).app()
    tasks = {view.name: view for view in Project.of(app).tasks}

    calls = tasks["sample.asks_in_time"].calls
    names = [call.name for call in calls]

    assert names == ["smtplib.SMTP", "urllib.request.urlopen"]
    assert calls[0].line + 1 == calls[1].line
    assert [c.name for c in tasks["sample.waits_at_once"].calls] == [
        "pay.delay().get",
        "pay.delay",
    ]


def test_a_task_without_a_file_has_no_source() -> None:
    """Nor has one of a package: it is not the project's to change."""
    assert source.source_of(print) is None
    space: dict[str, Any] = {}
    exec("def typed_in(): ...", space)
    app = Site(tasks=[(space["typed_in"], {"name": "sample.x"})]).app()
    assert source.source_of(app.tasks["sample.x"]) is None
    assert source.source_of(types.SimpleNamespace(run=types.resolve_bases)) is None
    (view,) = Project.of(app).tasks
    assert view.calls == ()


def test_what_was_read_is_forgotten_after_the_checks() -> None:
    """A worker runs them, too, and forks."""
    with dead.celery_app() as app:
        app.task(name="shop.asks", shared=False)(samples.asks)

        assert [each.id for each in checks.check()] == ["unstuck.W052"]

    assert source.parsed.cache_info().currsize == 0


def test_source_that_is_no_python_or_very_deep_is_passed_over(tmp_path: Path) -> None:
    """It is another one's to say."""
    broken, deep = tmp_path / "broken.py", tmp_path / "deep.py"
    broken.write_text("def f(:\n")
    deep.write_text("def f():\n    return " + " + ".join(["g()"] * 900))

    assert source.parsed(str(broken)) is None
    assert source.parsed(str(tmp_path / "none.py")).functions == {}  # type: ignore[union-attr]
    file = source.parsed(str(deep))
    assert file is not None
    assert len(list(source.calls_below(file.tree, file.imports))) == 900


@pytest.mark.parametrize(
    ("text", "number"), [("60 * 60", 3600.0), ("1.5", 1.5), ("a", None), ("True", None)]
)
def test_numbers_in_source_are_those_that_can_be_seen(
    text: str, number: float | None
) -> None:
    """A product is one; a name may be anything."""
    node = ast.parse(text, mode="eval").body
    assert source.number_in(node) == number
