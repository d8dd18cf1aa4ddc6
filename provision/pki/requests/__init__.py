"""Requests for certificates that an external authority signs. Machines make them. Pure.

For each certificate a machine makes a request and a key; the key never leaves the machine. The
signed certificate is stored beside them (`provision.model.paths.REQUESTS`) until the plan moves key
and certificate to their final paths. `provision.pki.signed` checks the certificate.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files as resources

from provision.model import paths
from provision.model.sections import Sections
from provision.model.shell import with_parameters
from provision.pki.authority import Authority
from provision.pki.leaf import WORDS, Leaf

_INDEX = "INDEX.txt"


def key_path(leaf: Leaf) -> str:
    """Path of the key on the machine, until there is a certificate for it."""
    return f"{paths.REQUESTS}/{leaf.name}.key"


def signed_path(leaf: Leaf) -> str:
    """Path of the signed certificate on the machine; the file has its chain too."""
    return f"{paths.REQUESTS}/{leaf.name}.crt"


def all_paths(leaf: Leaf) -> tuple[str, ...]:
    """Paths of all files of a request on its machine."""
    return tuple(f"{paths.REQUESTS}/{leaf.name}.{end}" for end in ("key", "csr", "cnf", "crt"))


# The operator's directory has AUTHORITY/MACHINE.LEAF.csr, and gets AUTHORITY/MACHINE.LEAF.crt.


def file_name(machine: str, leaf: Leaf, end: str) -> str:
    return f"{leaf.authority}/{machine}.{leaf.name}.{end}"


def authority_file(authority: Authority) -> str:
    return f"{authority}.crt"


def outgoing(requests: Mapping[str, Mapping[Leaf, str]]) -> dict[str, bytes]:
    """File name -> content, of the requests and of an index of them.

    Args:
        requests: machine -> leaf -> request, PEM.
    """
    files = {
        file_name(machine, leaf, "csr"): pem.encode()
        for machine, asked in requests.items()
        for leaf, pem in asked.items()
    }
    rows = [("FILE", "MACHINE", "SIGNED BY", "PURPOSE", "SUBJECT", "NAMES")]
    rows += [
        (
            file_name(machine, leaf, "csr"),
            machine,
            leaf.authority,
            purpose(leaf),
            shown_subject(leaf),
            ", ".join((*leaf.dns, *leaf.addresses)) or "-",
        )
        for machine, asked in requests.items()
        for leaf in asked
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return {**files, _INDEX: "".join(f"{line}\n" for line in lines).encode()}


def purpose(leaf: Leaf) -> str:
    return " and ".join(sorted(leaf.usages))


def shown_subject(leaf: Leaf) -> str:
    return ", ".join((*(f"O={o}" for o in leaf.organizations), f"CN={leaf.common_name}"))


# Programs that run on a machine, and what they print and read.


def request_program(leaves: Iterable[Leaf]) -> str:
    """The program that makes a key and a request for each leaf, and prints the requests.

    It keeps an existing request that is the same. It needs root.
    """
    lines = "".join(f"request {leaf.name} {shlex.quote(_config(leaf))}\n" for leaf in leaves)
    return _program(_text("make"), lines)


def read_program() -> str:
    """The program that prints the requests of a machine; needs root."""
    return with_parameters(_text("read"), requests=paths.REQUESTS)


def store_program() -> str:
    """The program that stores signed certificates beside their keys; reads `store_input`."""
    return _program(_text("store"))


def _program(*parts: str) -> str:
    text = _text("common") + "".join(parts)
    return with_parameters(text, state=paths.STATE, requests=paths.REQUESTS)


@cache
def _text(name: str) -> str:
    return resources(__package__).joinpath(f"{name}.sh").read_text()


def _config(leaf: Leaf) -> str:
    alternatives = [f"DNS:{name}" for name in leaf.dns]
    alternatives += [f"IP:{address}" for address in leaf.addresses]
    lines = [
        "[req]",
        "prompt = no",
        "distinguished_name = subject",
        "req_extensions = extensions",
        "string_mask = utf8only",
        "[subject]",
        *(f"{number}.O = {name}" for number, name in enumerate(leaf.organizations)),
        f"CN = {leaf.common_name}",
        "[extensions]",
        "basicConstraints = critical, CA:FALSE",
        "keyUsage = critical, digitalSignature",
        f"extendedKeyUsage = {', '.join(WORDS[usage] for usage in sorted(leaf.usages))}",
    ]
    if alternatives:
        lines.append(f"subjectAltName = {', '.join(alternatives)}")
    return "\n".join(lines)


def parse(output: str) -> dict[str, str]:
    """Leaf's name -> request, PEM, from what `request_program` or `read_program` printed."""
    said = Sections.of(output)
    return {name: said.text(name) for name in said.sections}


def store_input(signed: Mapping[Leaf, bytes]) -> bytes:
    """What the program of `store_program` reads on its standard input."""
    return b"".join(b"@@ %s\n%s" % (leaf.name.encode(), pem) for leaf, pem in signed.items())
