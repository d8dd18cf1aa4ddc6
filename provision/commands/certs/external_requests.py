"""Certificates that an authority elsewhere signs: what is asked of it, and what comes back.

Keys are made on the machines and stay there. What was signed is looked at as a whole before any
machine gets it; then it lies beside its key, and the plan puts both where they belong: that of `up`
for a new cluster, in the manner of `certs renew` for one that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from provision.apply.fanout import fan_out
from provision.apply.phases import RENEW, UP, Run, execute
from provision.apply.session import Session
from provision.commands import converge
from provision.commands.certs import renewal
from provision.model.cluster import Cluster, Machine
from provision.model.errors import CertificatesError, Finding, RefusedError, UnreachableError
from provision.model.look import Look, reasons
from provision.pki import requests, table
from provision.pki.leaf import Leaf, ends
from provision.pki.requests import authority_file
from provision.pki.signed import (
    Signed,
    authority_findings,
    findings_of,
    read_chain,
    shared_findings,
    signed_by_one_of,
)
from provision.pki.trust import UNREADABLE, Authority, Signer, Trust
from provision.plan import external_authority
from provision.plan.leaves import leaf_problem
from provision.plan.make import make_plan
from provision.plan.model import Plan

Requests = dict[str, dict[Leaf, str]]


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes:
        issued: machine -> names of leaves that are in use now.
        waiting: machine -> names of leaves that wait for `up`.
        others: where more than certificates is to change, which `up` shows before it does it.
        seconds: phase -> wall time.
    """

    issued: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    waiting: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def refuse_own(cluster: Cluster) -> None:
    """Check that the authority is external.

    Raises:
        RefusedError: the cluster has authorities of its own.
    """
    if not cluster.certificates.external:
        message = f"{cluster.name} signs its certificates itself"
        raise RefusedError(
            message,
            hint=f"clusterctl certs renew {cluster.inventory}; an authority elsewhere is "
            'cluster["certificates"] = {"authority": "external"}, for a new cluster',
        )


def refuse_external(cluster: Cluster, what: str) -> None:
    """Check that the cluster has authorities of its own.

    Raises:
        RefusedError: the authority is external, with the way out.
    """
    if cluster.certificates.external:
        raise external_authority.refusal(cluster, what)


def request_certificates(
    session: Session, names: frozenset[str], *, everything: bool = False
) -> Requests:
    """Have machines make keys and requests.

    Args:
        names: of leaves; none: those that are needed.
        everything: also of those that are good.

    Returns:
        machine -> leaf -> request, PEM; nothing where nothing is needed.

    Raises:
        RefusedError: no leaf has such a name.
        PreflightError: the machines are not fit.
        PhaseError: a machine could not make them.
    """
    look = converge.look_at_all(session)
    converge.check(session, look)
    trust = session.known_trust(look)
    known = renewal.leaf_names(session)
    if unknown := sorted(names - known):
        message = f"no machine has a certificate called {', '.join(unknown)}"
        raise RefusedError(message, hint=f"there are: {', '.join(sorted(known))}")
    now = datetime.now(UTC)
    wanted: dict[Machine, list[Leaf]] = {}
    for machine in look.answering(session.cluster.machines):
        seen = look[machine.name]
        for leaf in table.node_leaves(session.cluster, machine):
            needed = trust is None or (
                leaf_problem(leaf, trust, seen, now)
                and not external_authority.ready(leaf, trust, seen, now)
            )
            if leaf.name in names if names else everything or needed:
                wanted.setdefault(machine, []).append(leaf)
    if not wanted:
        return {}
    with session.progress.phase(
        "requests", "keys, and what is to be signed", tuple(_named(wanted))
    ):
        answers = _everywhere(
            session,
            {
                machine: (requests.request_program(leaves), b"")
                for machine, leaves in wanted.items()
            },
        )
    made = {}
    for machine, leaves in wanted.items():
        printed = requests.parse(answers[machine])
        made[machine.name] = {leaf: printed[leaf.name] for leaf in leaves}
    return made


def import_signed(session: Session, directory: Path) -> Imported:
    """Take what was signed; nothing is touched if anything is wrong with it.

    Raises:
        CertificatesError: with everything that is wrong.
        RefusedError: nothing was asked for; or authorities would change together with other things.
        UnreachableError: authorities change, and a machine would not hear of it.
        PhaseError: with every machine that failed in the phase that failed.
    """
    look = converge.look_at_all(session)
    converge.check(session, look)
    known = session.known_trust(look)
    now = datetime.now(UTC)
    asked = _asked(session, look)
    authorities, findings = _authorities(directory, known, now)
    read, more = _read(look, directory, asked, known)
    findings += more
    accepted = {a: x509.load_pem_x509_certificates(pem) for a, pem in authorities.items()}
    for signed in (signed for of_one in read.values() for signed in of_one):
        findings += findings_of(signed, accepted.get(signed.leaf.authority, ()), now)
    in_use = _in_use(look, known, now) if known else []
    if known and not findings:
        findings += _order(look, read, known, authorities, in_use)
    if findings:
        message = f"{directory}: this is not what {session.cluster.name} needs; nothing was touched"
        raise CertificatesError(message, findings)
    trust = _trust(look, known, authorities)
    if trust is known and not any(read.values()):
        message = f"no machine of {session.cluster.name} waits for a certificate"
        hint = f"clusterctl certs csr {session.cluster.inventory} --all -o DIR asks for all anew"
        raise RefusedError(message, hint=hint)
    if trust is not known and look.installed:
        _all_answer(look)
    plan = Plan({})
    if known and _formed(look):
        try:
            plan = _without_it(look, known, now)
        except RefusedError:
            if in_use and trust is not known:
                raise
            # It will be again, once certificates are laid: who replaces a machine needs them there.
    others = _others(look, plan)
    if in_use and others and known and (trust is not known or _late(look, plan, known)):
        message = (
            f"authorities change alone, in one stage after the other, and {session.cluster.name} is "
            f"not as its inventory says ({', '.join(others)})"
        )
        hint = f"clusterctl up {session.cluster.inventory} first, then this again"
        raise RefusedError(message, hint=hint)
    session.cache.keep(trust)
    _lay(session, read)
    return _use(session, session.observe(), trust, others)


def _use(session: Session, look: Look, trust: Trust, others: tuple[str, ...]) -> Imported:
    """Put what was signed in its place, if the cluster is otherwise as its inventory says."""
    now = datetime.now(UTC)
    installed = renewal.as_installed(look, trust)
    plan = make_plan(session.cluster, trust, look, installed, now)
    waiting = renewal.issued(plan)
    if not _formed(look) or others:
        return Imported(waiting=waiting, others=others)
    external_authority.refuse_unsigned(session.cluster, trust, look, plan, now)
    run = Run(session, look, trust, installed, plan, now)
    # With all of them expired nothing runs: there are no turns to be taken.
    execute(run, RENEW if plan.running else UP)
    return Imported(issued=waiting, seconds=run.seconds)


def _formed(look: Look) -> bool:
    return any(view.etcd_formed for view in look.values())


def _without_it(look: Look, known: Trust, now: datetime) -> Plan:
    """What `up` would do if nothing was imported."""
    installed = renewal.as_installed(look, known)
    return make_plan(look.cluster, known, look, installed, now)


def _others(look: Look, plan: Plan) -> tuple[str, ...]:
    """Where more than certificates, and units that read them, is to change.

    Of objects in the cluster nobody can tell while no apiserver answers.
    """
    answers = look.api() is not None
    names = [
        name
        for name, machine in plan.machines.items()
        if machine.binaries
        or machine.images
        or machine.packages
        or machine.remove
        or machine.form_etcd
        or machine.join_etcd
        or (answers and machine.node)
        or any(c.files or c.directories for c in machine.components.values())
    ]
    if answers and (plan.apply or plan.delete):
        names.append("objects in the cluster")
    return tuple(names)


def _late(look: Look, plan: Plan, known: Trust) -> bool:
    """Whether a machine of the cluster has not got the authorities of the import before."""
    contents = {file.content for file in known.files().values()}
    return any(
        change.was is not None and change.file.content in contents
        for name, machine in plan.machines.items()
        if look[name].fingerprint
        for component in machine.components.values()
        for change in component.files
    )


def _named(machines: Iterable[Machine]) -> Iterator[str]:
    return (machine.name for machine in machines)


def _asked(session: Session, look: Look) -> Requests:
    """What machines have asked for, and has not been put in its place."""
    there = look.answering(session.cluster.machines)
    answers = _everywhere(session, dict.fromkeys(there, (requests.read_program(), b"")))
    found: Requests = {}
    for machine in there:
        pems = requests.parse(answers[machine])
        leaves = table.node_leaves(session.cluster, machine)
        found[machine.name] = {leaf: pems[leaf.name] for leaf in leaves if leaf.name in pems}
    return found


def _read(
    look: Look, directory: Path, asked: Requests, known: Trust | None
) -> tuple[dict[str, list[Signed]], list[Finding]]:
    """Machine -> what came back for it."""
    read: dict[str, list[Signed]] = {}
    findings = []
    now = datetime.now(UTC)
    for name, leaves in asked.items():
        for leaf, request in leaves.items():
            where = requests.file_name(name, leaf, "crt")
            file = directory / where
            laid = known and external_authority.ready(leaf, known, look[name], now)
            if file.is_file():
                read.setdefault(name, []).append(Signed(where, leaf, request, file.read_bytes()))
            elif not laid:
                hint = f"what {file.with_suffix('.csr').name} asks for"
                findings.append(Finding(where, "is missing", hint))
    # New authorities come before what they have signed.
    alone = known and not read and any((directory / authority_file(a)).is_file() for a in Authority)
    return read, [] if alone else findings


def _authorities(
    directory: Path, known: Trust | None, now: datetime
) -> tuple[dict[Authority, bytes], list[Finding]]:
    """Authority -> its certificates: those of the directory, else those that the cluster has."""
    found: dict[Authority, bytes] = {}
    files: dict[str, bytes] = {}
    findings = []
    for authority in Authority:
        where = authority_file(authority)
        file = directory / where
        if file.is_file():
            wrong = list(authority_findings(where, file.read_bytes(), now))
            findings += wrong
            if not wrong:
                found[authority] = read_chain(file.read_bytes())
                files[where] = found[authority]
        elif known:
            found[authority] = known.authority(authority).certificate
            files[f"the cluster's {authority}"] = found[authority]
        else:
            hint = "the certificate of the authority that signs what is in the directory beside it"
            findings.append(Finding(where, "is missing", hint))
    findings += shared_findings(files)
    return found, findings


def _order(
    look: Look,
    read: Mapping[str, list[Signed]],
    known: Trust,
    authorities: Mapping[Authority, bytes],
    in_use: list[tuple[str, Leaf, bytes]],
) -> Iterator[Finding]:
    """Whether machines would refuse each other while one after the other changes.

    Each must accept what all have now, and what all get. What has expired nobody accepts anyway.
    """
    if not look.installed:
        return
    coming = {a: Signer(certificate, None).accepted for a, certificate in authorities.items()}
    for machine, leaf, pem in in_use:
        if not signed_by_one_of(pem, coming[leaf.authority]):
            where = authority_file(leaf.authority)
            what = f"lacks who has signed the {leaf.name} that {machine} has"
            hint = "leave the old authority in it until nothing of its is in use"
            yield Finding(where, what, hint)
    living = {leaf.authority for _, leaf, _ in in_use}
    for signed in (signed for of_one in read.values() for signed in of_one):
        authority = signed.leaf.authority
        accepted = known.authority(authority).accepted
        if authority in living and not signed_by_one_of(signed.certificate, accepted):
            what = "signed by an authority that the machines do not accept yet"
            hint = f"import {authority_file(authority)} alone first, with both in it"
            yield Finding(signed.where, what, hint)


def _in_use(look: Look, known: Trust, now: datetime) -> list[tuple[str, Leaf, bytes]]:
    """Machine, leaf and certificate, of all that somebody still accepts."""
    return [
        (machine.name, leaf, pem.encode())
        for machine in look.answering(look.cluster.machines)
        for leaf in table.node_leaves(look.cluster, machine)
        if (pem := look[machine.name].certificates.get(leaf.cert_path))
        and _counts(pem.encode(), known.authority(leaf.authority).accepted, now)
    ]


def _counts(pem: bytes, authorities: list[x509.Certificate], now: datetime) -> bool:
    try:
        return ends(x509.load_pem_x509_certificate(pem), authorities) > now
    except UNREADABLE:
        return False


def _all_answer(look: Look) -> None:
    if unreachable := look.unreachable():
        message = (
            "all machines change their authorities together, and one does not answer. "
            f"{reasons(unreachable)}"
        )
        raise UnreachableError(
            message,
            hint="nothing was touched; when it is back, or taken out with `clusterctl node remove`, "
            "run the same command again",
        )


def _trust(look: Look, known: Trust | None, authorities: Mapping[Authority, bytes]) -> Trust:
    """The cluster's trust with these authorities; what it has already stays."""
    signers = {a: Signer(certificate, None) for a, certificate in authorities.items()}
    if known is None:
        return Trust.signed_by(signers)
    if all(known.authority(a) == signer for a, signer in signers.items()):
        return known
    return replace(
        known,
        kubernetes=signers[Authority.KUBERNETES],
        etcd=signers[Authority.ETCD],
        front_proxy=signers[Authority.FRONT_PROXY],
        identity=known.fingerprint if look.installed else "",
        generation=known.generation + 1,
    )


def _lay(session: Session, read: Mapping[str, list[Signed]]) -> None:
    """Lay what came back beside its keys."""
    programs = {
        session.cluster.machine(name): (
            requests.store_program(),
            requests.store_input({s.leaf: read_chain(s.certificate) for s in signed}),
        )
        for name, signed in read.items()
    }
    _everywhere(session, programs)


def _everywhere(
    session: Session, programs: Mapping[Machine, tuple[str, bytes]]
) -> dict[Machine, str]:
    """Run a program with its input on each machine, side by side: what it printed.

    Raises:
        PhaseError: with every machine on which it failed.
    """
    return fan_out(
        "requests",
        programs,
        lambda machine: session.engine.shell(machine, *programs[machine]),
        hint="run the same command again",
    )
