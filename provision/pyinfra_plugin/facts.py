"""The one look at a machine that everything is decided by, as a pyinfra fact."""

from __future__ import annotations

from pyinfra.api.facts import FactBase

from provision.observe.script import Query


class MachineState(FactBase[str]):
    """What the probe printed, for `provision.observe.parse`; needs root (`_sudo`).

    `host.get_fact(MachineState, query=Query(address="10.0.0.11"))`
    """

    def command(self, query: Query) -> str:
        return query.program()

    def process(self, output: list[str]) -> str:
        return "\n".join(output)

    @staticmethod
    def default() -> str:
        return ""
