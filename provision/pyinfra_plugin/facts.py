"""The probe of a machine, on which all decisions are based, as a pyinfra fact."""

from __future__ import annotations

from pyinfra.api.facts import FactBase

from provision.observe.script import Query


class MachineState(FactBase[str]):
    """The probe's output, for `provision.observe.parse`. Needs root (`_sudo`).

    `host.get_fact(MachineState, query=Query(address="10.0.0.11"))`
    """

    def command(self, query: Query) -> str:
        return query.program()

    def process(self, output: list[str]) -> str:
        return "\n".join(output)

    @staticmethod
    def default() -> str:
        return ""
