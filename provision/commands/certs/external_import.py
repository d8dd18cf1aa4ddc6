"""Import of what an external authority signed.

All of it is judged before any machine gets anything. Then each certificate is placed beside its key,
and a plan installs both: the plan of `up` for a new cluster, that of `certs renew` for a running one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from provision.apply.phases import RENEW, UP, Run, execute
from provision.apply.session import Session
from provision.apply.unfinished import marked
from provision.commands import converge
from provision.commands.certs import renewal
from provision.commands.certs.external_requests import Requests, everywhere
from provision.model.commands import clusterctl
from provision.model.errors import CertificatesError, Finding, RefusedError, UnreachableError
from provision.model.look import Look, reasons
from provision.pki import requests, table
from provision.pki.authority import UNREADABLE, Authority, Signer
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
from provision.pki.trust import Trust
from provision.plan import external_authority
from provision.plan.make import make_plan
from provision.plan.model import Plan


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        issued: machine -> names of leaves that are in use now.
        waiting: machine -> names of leaves that wait for `up`.
        others: where `up` would also change other things than certificates.
        seconds: phase -> wall time.
        took: wall seconds from the command's start until the cluster was changed.
    """

    issued: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    waiting: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    took: float = 0.0
    others: tuple[str, ...] = ()


def import_signed(session: Session, directory: Path) -> Imported:
    """Import what was signed; if anything is wrong with it, nothing is touched.

    Raises:
        CertificatesError: with everything that is wrong.
        RefusedError: there is nothing to import; or authorities would change together with other
            things.
        UnreachableError: authorities change, and a machine does not answer.
        PhaseError: with every machine that failed in the phase that failed.
    """
    look = converge.look_at_all(session)
    converge.check(session, look)
    known = session.known_trust(look)
    now = datetime.now(UTC)
    authorities, read, in_use = _judged(session, look, directory, known, now)
    trust = _trust(look, known, authorities)
    if trust is known and not any(read.values()):
        message = f"no machine of {session.cluster.name} waits for a certificate"
        hint = f"{clusterctl('certs', 'csr', session.cluster.inventory, '--all', '-o', 'DIR')} requests all anew"
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
            # A machine that is being replaced needs its certificates before `up` can plan for it.
    others = _others(look, plan)
    if in_use and others and known and (trust is not known or _late(look, plan, known)):
        message = (
            f"authorities cannot change together with other things, and {session.cluster.name} "
            f"differs from its inventory ({', '.join(others)})"
        )
        hint = f"{clusterctl('up', session.cluster.inventory)} first, then this again"
        raise RefusedError(message, hint=hint)
    session.cache.keep(trust)
    _place(session, read)
    return _use(session, session.observe(), trust, others)


def _judged(
    session: Session, look: Look, directory: Path, known: Trust | None, now: datetime
) -> tuple[dict[Authority, bytes], dict[str, list[Signed]], list[tuple[str, Leaf, bytes]]]:
    """Authorities, certificates by machine, and certificates in use (see `_in_use`).

    Raises:
        CertificatesError: with everything that is wrong in the directory.
    """
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
        message = f"{directory} cannot be imported into {session.cluster.name}; nothing was touched"
        raise CertificatesError(message, findings)
    return authorities, read, in_use


def _use(session: Session, look: Look, trust: Trust, others: tuple[str, ...]) -> Imported:
    """Install the certificates, if the cluster is otherwise as its inventory says."""
    now = datetime.now(UTC)
    installed = renewal.as_installed(look, trust)
    plan = make_plan(session.cluster, trust, look, installed, now)
    waiting = renewal.issued(plan)
    if not _formed(look) or others:
        return Imported(waiting=waiting, others=others)
    external_authority.refuse_unsigned(session.cluster, trust, look, plan, now)
    run = Run(session, look, trust, installed, plan, now)
    # If all certificates have expired nothing runs: all machines may change at once.
    with marked(run):
        execute(run, RENEW if plan.running else UP)
    return Imported(issued=waiting, seconds=run.seconds, took=session.took)


def _formed(look: Look) -> bool:
    return any(view.etcd_formed for view in look.values())


def _without_it(look: Look, known: Trust, now: datetime) -> Plan:
    """The plan of `up` before the import."""
    installed = renewal.as_installed(look, known)
    return make_plan(look.cluster, known, look, installed, now)


def _others(look: Look, plan: Plan) -> tuple[str, ...]:
    """Where other things than certificates, and the units that read them, would change.

    Objects in the cluster are unknown while no apiserver answers: they are left out.
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
    """Whether a machine of the cluster still lacks the authorities of the previous import."""
    contents = {file.content for file in known.files().values()}
    return any(
        change.was is not None and change.file.content in contents
        for name, machine in plan.machines.items()
        if look[name].fingerprint
        for component in machine.components.values()
        for change in component.files
    )


def _asked(session: Session, look: Look) -> Requests:
    """The requests on the machines whose certificates are not installed yet."""
    there = look.answering(session.cluster.machines)
    answers = everywhere(session, dict.fromkeys(there, (requests.read_program(), b"")))
    found: Requests = {}
    for machine in there:
        pems = requests.parse(answers[machine])
        leaves = table.node_leaves(session.cluster, machine)
        found[machine.name] = {leaf: pems[leaf.name] for leaf in leaves if leaf.name in pems}
    return found


def _read(
    look: Look, directory: Path, asked: Requests, known: Trust | None
) -> tuple[dict[str, list[Signed]], list[Finding]]:
    """Machine -> the certificates in the directory for its requests."""
    read: dict[str, list[Signed]] = {}
    findings = []
    now = datetime.now(UTC)
    for name, leaves in asked.items():
        for leaf, request in leaves.items():
            where = requests.file_name(name, leaf, "crt")
            file = directory / where
            valid = known and external_authority.ready(leaf, known, look[name], now)
            if file.is_file():
                read.setdefault(name, []).append(Signed(where, leaf, request, file.read_bytes()))
            elif not valid:
                hint = f"it is the certificate for the request {file.with_suffix('.csr').name}"
                findings.append(Finding(where, "is missing", hint))
    # New authorities are imported alone, before the certificates that they signed.
    alone = known and not read and any((directory / authority_file(a)).is_file() for a in Authority)
    return read, [] if alone else findings


def _authorities(
    directory: Path, known: Trust | None, now: datetime
) -> tuple[dict[Authority, bytes], list[Finding]]:
    """Authority -> its certificates: from the directory, else from the cluster."""
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
            hint = "it is the certificate of the authority that signs the requests in the directory"
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
    """Whether machines would refuse each other while they change one after the other.

    Each machine must accept all certificates in use and all new ones. Expired ones do not count.
    """
    if not look.installed:
        return
    coming = {a: Signer(certificate, None).accepted for a, certificate in authorities.items()}
    for machine, leaf, pem in in_use:
        if not signed_by_one_of(pem, coming[leaf.authority]):
            where = authority_file(leaf.authority)
            what = f"lacks the authority that signed the {leaf.name} of {machine}"
            hint = "keep the old authority in it as long as a certificate of it is in use"
            yield Finding(where, what, hint)
    living = {leaf.authority for _, leaf, _ in in_use}
    for signed in (signed for of_one in read.values() for signed in of_one):
        authority = signed.leaf.authority
        accepted = known.authority(authority).accepted
        if authority in living and not signed_by_one_of(signed.certificate, accepted):
            what = "signed by an authority that the machines do not accept yet"
            hint = f"first import {authority_file(authority)} alone, with both authorities in it"
            yield Finding(signed.where, what, hint)


def _in_use(look: Look, known: Trust, now: datetime) -> list[tuple[str, Leaf, bytes]]:
    """Machine, leaf and certificate, of all that are still valid."""
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
            "authorities change on all machines together, and a machine does not answer. "
            f"{reasons(unreachable)}"
        )
        raise UnreachableError(
            message,
            hint="nothing was touched; start the machine, or remove it: "
            f"{clusterctl('node', 'remove', look.cluster.inventory, next(iter(unreachable)))}; "
            "then run the same command again",
        )


def _trust(look: Look, known: Trust | None, authorities: Mapping[Authority, bytes]) -> Trust:
    """The cluster's trust with these authorities; its other keys stay."""
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


def _place(session: Session, read: Mapping[str, list[Signed]]) -> None:
    """Place the certificates beside their keys."""
    programs = {
        session.cluster.machine(name): (
            requests.store_program(),
            requests.store_input({s.leaf: read_chain(s.certificate) for s in signed}),
        )
        for name, signed in read.items()
    }
    everywhere(session, programs)
