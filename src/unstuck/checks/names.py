"""Rules for the names of settings: Celery takes any, and says nothing of those it ignores."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from unstuck.checks import known
from unstuck.checks.rule import Found, found, rule
from unstuck.checks.view import Project, Written, shown
from unstuck.profile import PROFILE

OLD_PREFIXES = ("CELERYD_", "CELERYBEAT_")
"""How Celery's settings began before version 4, beside ``CELERY_``."""


@rule(
    "E020",
    title="a setting with a name that is nearly one of Celery's",
    says="{key} = {value} is no setting of Celery or of unstuck: nothing reads it.",
    remedy="Did you mean {meant}? Rename it, or remove it.",
)
def misspelt_settings(project: Project) -> Iterator[Found]:
    """E020: Celery takes the name and goes on with its default."""
    for each, meant in _unknown(project):
        if meant:
            key = _spelled_like(each, project.spelled(meant))
            # By both names: that of a password may be the one with the slip.
            value = shown(each.value, f"{each.key} {meant}")
            yield found(each.key, key=each.key, value=value, meant=key)


@rule(
    "W021",
    title="a setting in Celery's namespace that nobody knows",
    says="{key} = {value} is no setting of Celery or of unstuck: neither reads it.",
    remedy="Remove it. If code of yours reads it, give it a name that does not begin "
    "like Celery's.",
)
def settings_that_nobody_knows(project: Project) -> Iterator[Found]:
    """W021: it is near to none, so it may be the project's own."""
    for each, meant in _unknown(project):
        if not meant and each.name not in known.GONE:
            yield found(each.key, key=each.key, value=_shown(each))


@rule(
    "W022",
    title="a setting that Celery had once and reads no more",
    says="{key} = {value} is a setting of an old Celery: this one does not read it.",
    remedy="Remove it{instead}.",
)
def settings_that_are_gone(project: Project) -> Iterator[Found]:
    """W022: a relic of an upgrade."""
    for each in project.written:
        if _is_ours_to_judge(project, each) and each.name in known.GONE:
            new = known.GONE[each.name]
            instead = f"; today it is {project.spelled(new)}" if new else ""
            yield found(each.key, key=each.key, value=_shown(each), instead=instead)


@rule(
    "E022",
    title="Django settings for Celery that the app does not read",
    says="{key} = {value} is in Django's settings, and the Celery app does not read it{others}.",
    remedy='Configure the app by app.config_from_object("django.conf:settings", '
    'namespace="CELERY"), and write each setting as {new}.',
)
def settings_that_are_not_read(project: Project) -> Iterator[Found]:
    """E022: no ``config_from_object``, another namespace, or a name of before Celery 4.

    One finding for all of them: they have one cause.
    """
    ignored = [
        (key, name)
        for key, name in _named_for_celery(project)
        if not _is_said(project, name)
    ]
    if ignored:
        key, name = ignored[0]
        more = f", nor {len(ignored) - 1} more that begin so" if ignored[1:] else ""
        value = shown(getattr(project.django, key), key)
        new = f"CELERY_{name.upper()}"
        yield found(key, key=key, value=value, others=more, new=new)


@rule(
    "E023",
    title="a setting that is written as a plain variable",
    says="{name} = {value} in {module} is a variable like any other: the Celery app "
    "does not read it.",
    remedy="Write {key} in the settings of the project, or app.conf.{setting} = ….",
)
def settings_as_variables(project: Project) -> Iterator[Found]:
    """E023: the value looks set, and Celery's default is in force."""
    for each in _variables(project):
        if not _may_be_the_projects(each.facts["name"]):
            yield each


@rule(
    "W062",
    title="a variable that bears the name of a setting",
    says="{name} = {value} in {module} has the name of a setting of Celery's, of which the "
    "project says nothing: the Celery app does not read the variable.",
    remedy="If Celery shall know it, write {key}. Silence this if it is for code of yours.",
)
def variables_that_look_like_settings(project: Project) -> Iterator[Found]:
    """W062: without a prefix it may be a constant of the project's own."""
    for each in _variables(project):
        if _may_be_the_projects(each.facts["name"]):
            yield each


def _unknown(project: Project) -> Iterator[tuple[Written, str]]:
    """The settings that are none of Celery's, each with the one that was meant."""
    for each in project.written:
        if not _is_ours_to_judge(project, each) or each.name in known.SETTINGS:
            continue
        if each.name in known.GONE or each.name.startswith(known.OF_OTHERS):
            continue
        meant = known.meant(each.name, known.SETTINGS, known.SETTINGS_MEANT)
        if meant or _is_namespaced(project, each):
            yield each, meant


def _is_ours_to_judge(project: Project, each: Written) -> bool:
    """Whether a key is meant for Celery, and no setting of Django or of anybody else."""
    if _is_namespaced(project, each):
        return True
    in_changes = each.key in project.conf.changes
    return in_changes and each.key.lower().startswith(known.NAMESPACES)


def _is_namespaced(project: Project, each: Written) -> bool:
    prefix = project.conf.prefix
    if prefix and each.key.lower().startswith(prefix.lower()):
        return True
    return each.key.startswith(("CELERY_", *OLD_PREFIXES))


def _named_for_celery(project: Project) -> Iterator[tuple[str, str]]:
    """Django's settings that bear a name which Celery has, or had, for one of its own."""
    for key in dir(project.django):
        if key in known.OLD_SETTINGS and key.startswith(("CELERY_", *OLD_PREFIXES)):
            yield key, known.OLD_SETTINGS[key]
        elif key.startswith("CELERY_") and key[7:].lower() in known.SETTINGS:
            yield key, key[7:].lower()


def _is_said(project: Project, name: str) -> bool:
    """Whether the project says anything of a setting, under any of its names."""
    aliases = (alias for row in PROFILE if row.name == name for alias in row.aliases)
    return any(map(project.says, (name, *aliases)))


def _variables(project: Project) -> Iterator[Found]:
    """Variables that bear the name of a setting of which the project says nothing."""
    for module in project.config_modules:
        for name, value in list(vars(module).items()):
            setting = name.lower().removeprefix("celery_")
            if module is project.settings_module and name.startswith("CELERY_"):
                continue  # Django's settings: E022 sees those that are not read.
            if (
                setting in known.SETTINGS
                and setting.startswith(known.NAMESPACES)
                and not inspect.ismodule(value)
                and not callable(value)
                and project.conf.get(setting) != value
                and not _is_said(project, setting)
            ):
                yield found(
                    f"{module.__name__}.{name}",
                    name=name,
                    value=shown(value, name),
                    module=module.__name__,
                    key=project.spelled(setting),
                    setting=setting,
                )


def _may_be_the_projects(name: str) -> bool:
    """Whether it is a constant that others may have given such a name, too."""
    return name.isupper() and not name.startswith("CELERY_")


def _spelled_like(each: Written, key: str) -> str:
    return key if each.key.isupper() else key.lower()


def _shown(each: Written) -> str:
    return shown(each.value, each.key)
