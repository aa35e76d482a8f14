"""Formatters: one line an event, with the task that it is of."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
import logging
import logging.config
import re
import threading
from datetime import datetime
from typing import Any

import pytest
from django.test import override_settings

from unstuck import Celery
from unstuck.fields import Fields
from unstuck.logs import JsonFormatter, PlainFormatter, TaskFilter, process, task

ID = "4f0c"


class Log:
    """A logger of a project and what it has written."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.out = io.StringIO()
        self.logger = logging.Logger("shop.views")
        handler = logging.StreamHandler(self.out)
        handler.setFormatter(formatter)
        self.logger.addHandler(handler)

    @property
    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def plain() -> Log:
    return Log(PlainFormatter("%(levelname)s %(message)s"))


@pytest.fixture
def as_json() -> Log:
    return Log(JsonFormatter())


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a child of a node."""
    monkeypatch.setattr(process, "here", process.Process())
    for module in ("plain", "json"):
        monkeypatch.setattr(f"unstuck.logs.{module}.here", process.here)
    process.become("child", node="celery@w1", number=3)


def run(app: Celery, body: Any) -> None:
    """Run a task in this process, as its third attempt."""

    @app.task(shared=False, name="shop.pay")
    def pay() -> None:
        body()

    pay.apply(task_id=ID, retries=2).get()
    app.tasks.pop(pay.name)


def test_each_line_of_a_task_names_it(app: Celery, plain: Log) -> None:
    """Whichever logger it uses; others' lines are what they were."""
    plain.logger.warning("before")
    run(app, lambda: plain.logger.warning("paid %s", 7))
    plain.logger.warning("after")

    assert plain.lines == [
        "WARNING before",
        f"WARNING shop.pay[{ID}]: paid 7",
        "WARNING after",
    ]


def test_a_line_that_names_its_task_is_let_be(app: Celery, plain: Log) -> None:
    """As Celery's own do."""
    run(app, lambda: plain.logger.info("Task shop.pay[%s] succeeded", ID))

    assert plain.lines == [f"INFO Task shop.pay[{ID}] succeeded"]


def test_a_format_with_a_place_for_the_task_has_it_there(app: Celery) -> None:
    """As Celery's format for its task loggers."""
    log = Log(PlainFormatter("%(task_name)s(%(task_id)s) %(message)s"))
    run(app, lambda: log.logger.info("paid"))
    log.logger.info("nobody")

    assert log.lines == [f"shop.pay({ID}) paid", "???(???) nobody"]


def test_an_event_is_one_line(plain: Log) -> None:
    """Also with line breaks in it, and with a traceback."""
    plain.logger.warning("one\ntwo\r")
    try:
        raise ValueError("no")
    except ValueError:
        plain.logger.exception("it failed")

    first, second = plain.lines
    assert first == r"WARNING one\ntwo\r"
    assert second.startswith(r"ERROR it failed\nTraceback (most recent call last):\n")
    assert second.endswith("ValueError: no")


def test_on_a_terminal_a_traceback_is_as_ever() -> None:
    """There a person reads it."""
    log = Log(PlainFormatter("%(message)s", use_color=True))
    log.logger.info("one\ntwo")

    assert log.lines == ["one", "two"]


def test_the_format_of_the_time_is_the_one_that_is_given() -> None:
    """As `CELERY_WORKER_LOG_DATEFMT` says."""
    log = Log(PlainFormatter("%(asctime)s %(message)s", datefmt="at %Y"))
    log.logger.info("up")

    assert re.fullmatch(r"at \d{4} up", log.lines[0])


def test_only_formats_with_percent_signs_are_known() -> None:
    """The others would be written as they are."""
    with pytest.raises(ValueError, match=r"style = '\{'"):
        PlainFormatter("{message}", style="{")


@pytest.mark.usefixtures("node")
def test_plain_lines_say_which_process_wrote_them() -> None:
    """All are the main process of their own, to Python."""
    log = Log(PlainFormatter())
    log.logger.warning("here")

    assert log.lines[0].endswith("WARNING/child-3] here")


@pytest.mark.usefixtures("node")
def test_a_json_line_says_what_when_where_and_of_which_task(
    app: Celery, as_json: Log
) -> None:
    """And is one object."""
    run(app, lambda: as_json.logger.warning("paid %s", 7, extra={"order": 42}))

    (line,) = as_json.objects
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line.pop("pid") > 0
    assert line == {
        "level": "WARNING",
        "logger": "shop.views",
        "text": "paid 7",
        "template": "paid %s",
        "process": "child",
        "node": "celery@w1",
        "task_id": ID,
        "task_name": "shop.pay",
        "attempt": 3,
        "fields": {"order": 42},
    }


def test_our_json_lines_have_a_constant_text(as_json: Log) -> None:
    """What varies is in the fields; the task has its place."""
    as_json.logger.error(
        "Task %(task)s is buried: %(fields)s",
        Fields(task_id="1", task_name="shop.pay", attempt=2, reason="failed"),
    )

    (line,) = as_json.objects
    assert line["text"] == "Task is buried"
    assert line["fields"] == {"reason": "failed"}
    assert (line["task_id"], line["task_name"], line["attempt"]) == ("1", "shop.pay", 2)
    assert "template" not in line


def test_a_line_of_no_task_has_no_field_of_one(as_json: Log) -> None:
    """Nor any other that would be empty."""
    as_json.logger.info("up")

    assert set(as_json.objects[0]) == {
        *("time", "level", "logger", "text", "process", "pid")
    }


def test_an_exception_is_in_its_line(as_json: Log) -> None:
    """Type, what it says, and where."""
    try:
        raise ConnectionError("gone")
    except ConnectionError:
        as_json.logger.exception("it failed", stack_info=True)

    (line,) = as_json.objects
    assert line["exception"]["type"] == "ConnectionError"
    assert line["exception"]["message"] == "gone"
    assert line["exception"]["traceback"].startswith("Traceback")
    assert line["stack"].startswith("Stack")


def test_secrets_are_redacted(as_json: Log) -> None:
    """By name, at any depth; Celery's arguments, which are texts, are left out."""
    as_json.logger.info("sent", extra={"call": {"password": "hunter2", "to": "me"}})
    context = {"id": "1", "name": "shop.pay", "args": "('hunter2',)", "runtime": 0.1}
    as_json.logger.name = "celery.app.trace"
    as_json.logger.info(
        "Task %(name)s[%(id)s] succeeded", context, extra={"data": context}
    )

    sent, done = as_json.objects
    assert sent["fields"] == {"call": {"password": "[redacted]", "to": "me"}}
    assert "hunter2" not in "".join(as_json.lines)
    assert (done["task_id"], done["fields"]) == ("1", {"runtime": 0.1})


def test_what_json_cannot_say_costs_no_line(as_json: Log) -> None:
    """Numbers that are none, objects, errors, and a field without an end."""
    endless: dict[str, Any] = {}
    endless["self"] = endless
    extra = {"nan": float("nan"), "it": object, "error": KeyError("x")}
    as_json.logger.info("odd", extra=extra)
    as_json.logger.info("endless", extra={"it": endless})

    odd, last = as_json.objects
    assert odd["fields"]["nan"] == "nan"
    assert odd["fields"]["error"] == "KeyError: 'x'"
    assert "RecursionError" in last["fields"]["unreadable"]


@override_settings(UNSTUCK={"REDACT": 7})
def test_wrong_settings_cost_no_line_either(as_json: Log) -> None:
    """What is secret by default stays so."""
    as_json.logger.info("sent", extra={"password": "hunter2"})

    assert as_json.objects[0]["fields"] == {"password": "[redacted]"}


def test_a_copied_context_takes_the_task_along(app: Celery, as_json: Log) -> None:
    """Into asyncio's threads and into one's own; a bare thread knows of no task."""

    def body() -> None:
        say = as_json.logger.info
        asyncio.run(asyncio.to_thread(say, "asyncio"))
        copied = contextvars.copy_context()
        for target in (lambda: copied.run(say, "copied"), lambda: say("bare")):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()

    run(app, body)

    assert [line.get("task_id") for line in as_json.objects] == [ID, ID, None]


def test_hooks_log_as_their_task(as_json: Log) -> None:
    """Which does not run any more."""
    request = type("Request", (), {"id": ID, "retries": 0})
    with task.within("shop.pay", request):
        as_json.logger.info("on_failure")

    assert as_json.objects[0]["task_id"] == ID
    assert as_json.objects[0]["attempt"] == 1


def test_a_project_names_them_in_its_own_logging(
    app: Celery, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/logs.md shows it."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"task": {"()": "unstuck.logs.TaskFilter"}},
            "formatters": {
                "json": {"()": "unstuck.logs.JsonFormatter"},
                "plain": {
                    "class": "unstuck.logs.PlainFormatter",
                    "format": "P %(message)s",
                },
                "own": {"format": "O %(task_name)s %(task_id)s %(message)s"},
            },
            "handlers": {
                name: {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "formatter": name,
                    "filters": ["task"],
                }
                for name in ("json", "plain", "own")
            },
            "loggers": {"own": {"handlers": ["json", "plain", "own"], "level": "INFO"}},
        }
    )
    own = logging.getLogger("own")
    run(app, lambda: own.info("paid"))
    own.info("up")
    own.handlers.clear()

    as_json, *lines, up, plain_up, own_up = capsys.readouterr().out.splitlines()
    assert json.loads(as_json)["task_id"] == ID
    assert lines == [f"P shop.pay[{ID}]: paid", f"O shop.pay {ID} paid"]
    assert "task_id" not in json.loads(up)
    assert (plain_up, own_up) == ("P up", "O ??? ??? up")


def test_a_line_that_another_thread_writes_keeps_its_task(app: Celery) -> None:
    """With the filter, where a handler hands lines over."""
    records: list[logging.LogRecord] = []
    logger = logging.Logger("shop")
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    handler.addFilter(TaskFilter())
    logger.addHandler(handler)
    run(app, lambda: logger.info("paid"))

    assert json.loads(JsonFormatter().format(records[0]))["attempt"] == 3


def test_what_a_line_says_of_a_task_itself_is_let_be(app: Celery) -> None:
    """It is about that one; and `attempt` may be a field of the project's."""
    plain, as_json = Log(PlainFormatter("%(message)s")), Log(JsonFormatter())
    for log in (plain, as_json):
        log.logger.handlers[0].addFilter(TaskFilter())
        log.logger.info("sent", extra={"task_id": 7})
        run(app, lambda log=log: log.logger.info("again", extra={"attempt": 9}))
        run(app, lambda log=log: log.logger.info("other", extra={"task_id": "o"}))

    assert plain.lines == ["sent", f"shop.pay[{ID}]: again", f"shop.pay[{ID}]: other"]
    sent, again, other = as_json.objects
    assert sent["task_id"] == 7
    assert (again["task_id"], again["attempt"]) == (ID, 9)
    assert (other["task_id"], other.get("attempt")) == ("o", None)


def test_text_that_is_none_costs_no_line(as_json: Log) -> None:
    """Bytes that no text has, as a file name of another system."""
    as_json.logger.info("a\udc80b")

    assert as_json.objects[0]["text"] == "a\udc80b"
    as_json.out.getvalue().encode()


def test_a_task_of_which_all_is_odd_costs_no_line(as_json: Log) -> None:
    """Headers come from outside."""
    for task_id, retries in ((None, 0), (7, "many")):
        request = type("Request", (), {"id": task_id, "retries": retries})
        with task.within("shop.pay", request):
            as_json.logger.info("unread")

    assert [line.get("task_id") for line in as_json.objects] == [None, "7"]


@pytest.mark.parametrize("field", task.FIELDS)
def test_a_format_that_names_any_field_of_the_task(app: Celery, field: str) -> None:
    """Outside a task as well."""
    log = Log(PlainFormatter(f"%({field})s %(message)s"))
    log.logger.warning("before")
    run(app, lambda: log.logger.warning("paid"))

    own = {"task_id": ID, "task_name": "shop.pay", "attempt": "3"}
    assert log.lines[1:] == [f"{own[field]} paid"]
    assert log.lines[0].endswith("before")


def test_a_format_may_have_the_name_that_dictconfig_gives_it() -> None:
    """``format``, also beside ``()``."""
    assert Log(PlainFormatter(format="MINE %(message)s")) is not None
    log = Log(PlainFormatter(format="MINE %(message)s"))
    log.logger.warning("paid")

    assert log.lines == ["MINE paid"]


class Silent(Exception):
    """An error of a project whose own words fail."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_that_cannot_be_shown_costs_no_line(plain: Log, as_json: Log) -> None:
    """Neither where it is a field nor where it is the reason of the line."""
    for log in (plain, as_json):
        log.logger.error("It failed: %(fields)s", Fields(error=Silent()))
        log.logger.error("It failed", exc_info=Silent())

    assert plain.lines[0].endswith('error="Silent: <Silent that cannot be shown>"')
    assert len(plain.lines) == len(as_json.objects) == 2
