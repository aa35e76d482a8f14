"""Rules for how often: acknowledgements, retries, strikes."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from unstuck import conf
from unstuck.checks.rule import Found, found, rule
from unstuck.checks.view import Project, TaskView, shown
from unstuck.worker.policy import retry_delay_of

MOST_STRIKES = 10

SHORT_DELAY = 30
"""Seconds; a service that is down is hit again at full rate by anything below."""

IDLE = {
    "task_acks_on_failure_or_timeout": "what becomes of a failure",
    "task_acks_on_failure": "what becomes of a failure",
    "task_acks_on_timeout": "what becomes of a time limit",
    "task_retry_on_worker_lost": "what becomes of a lost process",
}
"""Settings of Celery's that decide nothing here, and what decides instead."""

CHARGES = (
    "stripe.Charge.create",
    "stripe.PaymentIntent.create",
    "stripe.Refund.create",
    "stripe.Transfer.create",
    "stripe.Payout.create",
    "braintree.Transaction.sale",
)
MAILS = (
    "django.core.mail.send_mail",
    "django.core.mail.send_mass_mail",
    "django.core.mail.mail_admins",
    "django.core.mail.EmailMessage().send",
    "django.core.mail.EmailMultiAlternatives().send",
)
NOTED = ("idempot", "twice", "again", "second time", "at least once")
"""Words by which an author shows to have thought of a second run."""


@rule(
    "W026",
    title="messages that are taken ahead while others are free",
    says="{shown}: each worker takes {taken} ahead of what it runs; they wait behind its "
    "long tasks, and all of them come again when it dies.",
    remedy="Remove it for the default of 1.",
)
def prefetch_of_late_acknowledged(project: Project) -> Iterator[Found]:
    """W026: a multiplier other than 1, with tasks that are acknowledged late."""
    multiplier = project.conf.worker_prefetch_multiplier
    if multiplier != 1 and any(view.task.acks_late for view in project.tasks):
        key = project.spelled("worker_prefetch_multiplier")
        taken = (
            f"{multiplier} messages for each process" if multiplier else "all there is"
        )
        shown_here = project.shown("worker_prefetch_multiplier")
        yield found(key, shown=shown_here, taken=taken)


@rule(
    "W030",
    title="a setting of Celery's that decides nothing here",
    says="{shown} has no effect: with unstuck, {what} is decided by the table of endings.",
    remedy="Remove it; UNSTUCK['RETRY_ON_SOFT_LIMIT'], ['RETRY_ON_HARD_LIMIT'] and "
    "['MAX_STRIKES'], or the task options retry_on_limit and max_strikes, say what you want.",
)
def settings_without_effect(project: Project) -> Iterator[Found]:
    """W030: nobody shall rely on it."""
    for name, what in IDLE.items():
        if project.says(name):
            yield found(project.spelled(name), shown=project.shown(name), what=what)


@rule(
    "W031",
    title="a message that may kill many processes",
    says="{subject}: a message that kills its process does it so often before it is poison.",
    remedy="Use 3 or so; a loss that is not the task's fault seldom comes twice.",
)
def strikes_nearly_without_end(project: Project) -> Iterator[Found]:
    """W031: the loop of lost workers, with a bound that is none."""
    strikes = conf.current().max_strikes
    if strikes > MOST_STRIKES:
        yield found("UNSTUCK", subject=f"UNSTUCK['MAX_STRIKES'] = {strikes}")
    for view in project.tasks:
        own = view.task.max_strikes
        if own and own > MOST_STRIKES:
            subject = f"The task {view.name} has max_strikes={own}"
            yield found(view.name, subject=subject)


@rule(
    "W034",
    title="retries on every exception",
    says="The task {task} has autoretry_for=({broad},): a bug is retried like an outage, and "
    "so is the soft limit, which is an Exception, too.",
    remedy="Name the exceptions that another try may cure, such as ConnectionError; or "
    "except the others by dont_autoretry_for.",
)
def retries_on_everything(project: Project) -> Iterator[Found]:
    """W034: ``autoretry_for=(Exception,)`` with nothing excepted."""
    for view in project.tasks:
        retried = view.options.get("autoretry_for") or ()
        broad = [each for each in (Exception, BaseException) if each in retried]
        if broad and not view.options.get("dont_autoretry_for"):
            yield found(view.name, task=view.name, broad=broad[0].__name__)


@rule(
    "W035",
    title="automatic retries in quick succession",
    says="The task {task} has autoretry_for and tries again every {seconds:g} s, without backoff: "
    "what is down is hit again at full rate.",
    remedy="Give it retry_backoff=True, or a default_retry_delay of a minute.",
)
def retries_without_backoff(project: Project) -> Iterator[Found]:
    """W035: a short delay that does not grow."""
    for view in project.tasks:
        if not view.options.get("autoretry_for") or view.task.max_retries == 0:
            continue
        delay = retry_delay_of(view.task)
        seconds = delay.initial.total_seconds()
        if not delay.doubles and seconds < SHORT_DELAY:
            yield found(view.name, task=view.name, seconds=seconds)


@rule(
    "W036",
    title="a backoff that is cut at its first step",
    says="The task {task} has retry_backoff={first!r}, which is cut to {most:g} s by "
    "retry_backoff_max{default}.",
    remedy="Raise retry_backoff_max above {first!r}.",
)
def backoff_that_is_cut(project: Project) -> Iterator[Found]:
    """W036: ``retry_backoff`` is seconds, and its maximum 600 unless said."""
    for view in project.tasks:
        first = view.options.get("retry_backoff")
        said = view.options.get("retry_backoff_max")
        most = 600 if said is None else said
        if first and first is not True and first > most:
            default = (
                "" if said is not None else ", which is 600 unless the task says it"
            )
            yield found(
                view.name, task=view.name, first=first, most=most, default=default
            )


@rule(
    "W037",
    title="a retry in the source that has no end",
    says="The task {task} calls {call}(max_retries=None) ({where}): it may retry for ever.",
    remedy="Leave max_retries out there, or give a number.",
)
def retries_for_ever_in_source(project: Project) -> Iterator[Found]:
    """W037: the call wins over the task's own ``max_retries``."""
    for view in project.tasks:
        for call in view.calls:
            most = call.keywords.get("max_retries")
            is_none = isinstance(most, ast.Constant) and most.value is None
            if is_none and call.name.endswith(".retry"):
                where = view.at(call.line)
                yield found(view.name, task=view.name, call=call.name, where=where)


@rule(
    "W054",
    title="what cannot be undone, in a task that may run twice",
    says="The task {task} calls {call} {how} ({where}). It is acknowledged late, so it runs "
    "again after its process was lost, from its start.",
    remedy="{remedy}, or give the task acks_late=False (rather lost than twice). A note in its "
    "docstring on why a second run is harmless ends this warning, too.",
)
def once_only_in_late_acknowledged(project: Project) -> Iterator[Found]:
    """W054: payments without an idempotency key, and mails in a loop."""
    for view in project.tasks:
        if not view.task.acks_late or _is_noted(view):
            continue
        for call in view.calls:
            if call.name.endswith(CHARGES) and "idempotency_key" not in call.keywords:
                how, remedy = "without idempotency_key", "Pass idempotency_key"
            elif call.loops and call.name.endswith(MAILS):
                how, remedy = "in a loop", "Send a task for each mail"
            else:
                continue
            yield found(
                view.name,
                task=view.name,
                call=call.name,
                how=how,
                remedy=remedy,
                where=view.at(call.line),
            )


@rule(
    "W057",
    title="annotations that reach no task, or silence what tasks say",
    says="{key}[{name!r}] = {value} {problem}.",
    remedy="{remedy}",
)
def annotations_that_miss(project: Project) -> Iterator[Found]:
    """W057: an unknown name, or ``"*"``, which wins over the decorators."""
    annotations = project.conf.task_annotations
    key = project.spelled("task_annotations")
    for name, options in annotations.items() if isinstance(annotations, dict) else ():
        if name == "*":
            beaten = [
                view.name for view in project.tasks if _says_other(view, options or {})
            ]
            if beaten:
                problem = f"wins over what {beaten[0]} says itself"
                remedy = "Use the settings: a task's own option wins over those."
                yield _annotation(key, name, options, problem, remedy)
        elif name not in project.app.tasks and not project.load_error:
            remedy = "Correct the name, or remove it."
            yield _annotation(key, name, options, "is of no task here", remedy)


def _annotation(key: str, name: str, value: object, problem: str, remedy: str) -> Found:
    text = shown(value)
    return found(key, key=key, name=name, value=text, problem=problem, remedy=remedy)


def _says_other(view: TaskView, options: dict[str, object]) -> bool:
    """Whether the decorator of a task gives an option that was annotated over."""
    source = view.source
    if source is None:
        return False
    given = {
        keyword.arg
        for mark in source.node.decorator_list
        if isinstance(mark, ast.Call)
        for keyword in mark.keywords
    }
    return bool(given & set(options))


def _is_noted(view: TaskView) -> bool:
    text = view.source.text.lower() if view.source else ""
    return any(word in text for word in NOTED)
