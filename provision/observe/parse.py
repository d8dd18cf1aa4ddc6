"""The probe's output -> Observed. Pure. It never raises: an answer that cannot be read is an error."""

from __future__ import annotations

from provision.artifacts import images
from provision.desired import lock_programs
from provision.model.observed import Observed, PodNetwork
from provision.model.sections import SectionError, Sections, reading
from provision.observe import parse_api, parse_etcd, parse_host, parse_installed
from provision.observe.parse_record import Record


def parse(machine: str, output: str, sent_at: float, received_at: float) -> Observed:
    """Read what the probe of a machine printed.

    Args:
        machine: its name.
        output: all of the probe's output.
        sent_at: the operator's clock when the probe was sent, seconds since 1970.
        received_at: the same when its output had arrived.
    """
    try:
        return _observed(machine, Sections.of(output), (sent_at + received_at) / 2)
    except SectionError as error:
        return unreachable(machine, f"the machine's answer cannot be read: {error}")


def unreachable(machine: str, error: str, hint: str = "", *, off: bool = False) -> Observed:
    """The Observed of a machine that did not answer: why, and what to do."""
    return Observed(machine=machine, error=error, hint=hint, off=off)


def _observed(machine: str, output: Sections, operator_clock: float) -> Observed:
    output.lines("begin", required=True)
    output.lines("end", required=True)
    with reading("facts"):
        host = output.values("facts", required=True)
        if host["uid"] != "0":
            return unreachable(
                machine,
                f"the probe ran as user {host['uid']}, not as root",
                'set "_sudo": True in the inventory, or log in as root',
            )
    record = Record(tuple(tuple(line.split("\t")) for line in output.lines("record")))
    cluster, fingerprint = next(iter(record.of("cluster", 2)), ("", ""))[:2]
    files, binaries = parse_installed.files(output, record)
    loaded = parse_installed.loaded_units(output)
    return Observed(
        machine=machine,
        facts=parse_host.facts(output, host),
        host=parse_host.report(output, host, record, loaded, operator_clock),
        cluster=cluster,
        fingerprint=fingerprint,
        record=record.components(),
        trust=_trust(record),
        files=files,
        binaries=binaries,
        units=parse_installed.units(output, record, loaded),
        certificates=parse_installed.certificates(output),
        packages=frozenset(
            line.removeprefix("installed ")
            for line in output.lines("packages")
            if line.startswith("installed ")
        ),
        etcd_data="etcd_data" in host,
        etcd_formed="etcd_formed" in host,
        etcd_joining="etcd_joining" in host,
        restoring=host.get("restoring", ""),
        pods=_pods(output),
        for_life=output.values("for-life"),
        unfinished=host.get("unfinished", ""),
        registered="registered" in host,
        user_images=_user_images(output),
        holder=lock_programs.parse("\n".join(output.lines("lock"))),
        images=frozenset(pin for pin, *_ in record.of("images", 1)),
        etcd=parse_etcd.view(output),
        api=parse_api.view(output),
    )


def _pods(output: Sections) -> PodNetwork | None:
    if "pods" not in output:
        return None
    told = output.values("pods")
    return PodNetwork(
        cidr=told.get("cidr", ""),
        mtu=told.get("mtu", ""),
        bridge=told.get("bridge", ""),
        routes=frozenset(output.lines("pod-routes")),
        neighbours=output.values("neighbours"),
        unmapped=tuple(sorted(output.lines("unmapped"))),
    )


def _user_images(output: Sections) -> dict[str, str]:
    found = (line.rpartition("@") for line in output.lines("registry-images"))
    return {reference: digest for reference, _, digest in found if not _own(reference)}


def _own(reference: str) -> bool:
    """Whether an image is clusterctl's: also one of an earlier version, which stays in the registry."""
    own = set(images.refs().values())
    # Operators use other tags of these.
    shared = reference.startswith("docker.io/library/")
    repositories = {image.rpartition(":")[0] for image in own}
    return reference in own or (not shared and reference.rpartition(":")[0] in repositories)


def _trust(record: Record) -> tuple[int, str] | None:
    for generation, digest, *_ in record.of("trust", 2):
        if generation.isdecimal():
            return int(generation), digest
    return None
