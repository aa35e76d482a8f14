"""What is wrong with a running installation: asked live, judged purely.

``ask`` collects facts, each part under a time limit of its own; ``facts`` says what a fact
is; the rules are pure functions from ``Seen`` to what they find, one file per subject, each
a row of ``rule.TABLE``. ``docs/doctor.md`` has an anchor for each.
"""

SECONDS = 12.0
"""So long asking may take; who has not answered by then was not asked."""
