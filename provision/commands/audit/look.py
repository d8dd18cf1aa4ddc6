"""Ask every machine of a cluster once, and judge the answers."""

from __future__ import annotations

from provision.apply.session import Session
from provision.commands.audit.checks import checks
from provision.commands.audit.judge import Report, judge
from provision.commands.audit.probe import parse, program


def run_checks(session: Session) -> Report:
    """Run all checks; the report names machines that do not answer."""
    question = program(checks())
    fetched = session.engine.fetch(lambda _: question, session.cluster.machines)
    seen, silent = {}, {}
    for name, answer in fetched.items():
        if answer.error:
            silent[name] = answer.error
            continue
        try:
            seen[name] = parse(answer.output)
        except ValueError as error:
            silent[name] = str(error)
    return judge(session.cluster, seen, silent)
