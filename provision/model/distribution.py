"""The Linux distributions: one row for each, and what follows from it. Pure.

No other module depends on a distribution's name. docs/distributions.md shows this table; a test
keeps the two equal. `tests/integration/distributions_test.py` checks the generated configuration
against the programs of Debian 11, 12, 13 and sid, whose versions include the range of Ubuntu's.

Sources: Debian 11, 12 and 13: the archive, on 2026-12-01; that test compares them. The others:
what is publicly known; their lists of packages were not read. A version is as exact as it is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import TypeAlias

Version: TypeAlias = tuple[int, ...]

# Versions of releases that the table does not have: older or newer than every limit below.
OLDEST: Version = (0, 0)
NEWEST: Version = (999,)

# nft 0.9.9 made the word `type` of `reject with icmpx type` optional. Found with nft 0.9.8.
NFT_REJECTS_SHORT: Version = (0, 9, 9)
# knftables, which kube-proxy and the plug-in portmap use, refuses older versions.
NFT_FOR_KUBERNETES: Version = (1, 0, 1)
# Older versions read a server's key only from the certificate's own file (HAProxy's issue 845).
HAPROXY_READS_KEY: Version = (2, 4)
# 3.2 warns about a backend with the name of a frontend; 3.3 refuses it.
HAPROXY_WANTS_OWN_NAMES: Version = (3, 2)


class Family(StrEnum):
    """The family: it decides the names of packages and the program that installs them."""

    DEBIAN = "debian"  # apt
    RHEL = "rhel"  # dnf
    UNKNOWN = ""


class Proof(StrEnum):
    """How clusterctl was tested on a distribution."""

    RUN = "run"  # clusters run in the tests
    CHECKED = "checked"  # its own programs accept the configuration; its packages exist
    EXPECTED = "expected"  # follows from versions between those of checked distributions
    NOTHING = "nothing"


class Bird(Enum):
    """Which repository has BIRD."""

    OWN = "its own"
    EPEL = "EPEL"
    NONE = "none"


@dataclass(frozen=True)
class Distribution:
    """A release of a distribution.

    Attributes:
        ids: `ID` of os-release.
        release: the beginning of `VERSION_ID`; empty: every version.
        outdated: whether its publisher no longer publishes security fixes.
        haproxy, keepalived, bird, nftables, kernel: versions; None: not known.
        systemd: version; 0: not known.
        names: Debian's name of a package -> the name here, if it differs; None: every machine has
            its files.
        bird_from: the repository that has BIRD.
        epel: the package that adds EPEL, or its address.
        modules: the package with the modules of a kernel, without the kernel's version.
        selinux: whether SELinux enforces its policy by default.
        firewall: the firewall that is active by default, or usual there.
        resolver: the default resolver on a loopback address.
    """

    name: str
    ids: frozenset[str]
    release: Version
    family: Family
    proof: Proof
    haproxy: Version | None = None
    keepalived: Version | None = None
    bird: Version | None = None
    nftables: Version | None = None
    systemd: int = 0
    kernel: Version | None = None
    outdated: bool = False
    names: Mapping[str, str | None] = field(default_factory=dict, hash=False)
    bird_from: Bird = Bird.OWN
    epel: str = ""
    modules: str = ""
    selinux: bool = False
    firewall: str = ""
    resolver: str = ""

    def packages(self, *names: str) -> tuple[str, ...]:
        """Translate Debian's names of packages."""
        found = (self.names.get(name, name) for name in names)
        return tuple(name for name in found if name is not None)

    @property
    def rejects_short(self) -> bool:
        return not _older(self.nftables, NFT_REJECTS_SHORT)

    @property
    def nft_for_kubernetes(self) -> bool:
        return not _older(self.nftables, NFT_FOR_KUBERNETES)

    @property
    def haproxy_reads_key(self) -> bool:
        return not _older(self.haproxy, HAPROXY_READS_KEY)

    @property
    def haproxy_wants_own_names(self) -> bool:
        return self.haproxy is not None and not _older(self.haproxy, HAPROXY_WANTS_OWN_NAMES)


def _older(version: Version | None, limit: Version) -> bool:
    """Compare as many parts as are known: 1.0 is not older than 1.0.1."""
    return version is not None and version < limit[: len(version)]


_RHEL_NAMES: Mapping[str, str | None] = {
    "bird2": "bird",
    "conntrack": "conntrack-tools",
    # curl is always installed, often by the package curl-minimal, which conflicts with curl.
    "curl": None,
    "iproute2": "iproute",
    # `iptables` is only a name that this package provides; rpm does not find it.
    "iptables": "iptables-nft",
    "netbase": None,  # the package setup
    "openssh-client": "openssh-clients",
}
_DEBIAN_12 = Distribution(
    "Debian 12", frozenset({"debian"}), (12,), Family.DEBIAN, Proof.RUN,
    haproxy=(2, 6), keepalived=(2, 2, 7), bird=(2, 0, 12), nftables=(1, 0, 6),
    systemd=252, kernel=(6, 1),
)  # fmt: skip
_UBUNTU = Distribution(
    "Ubuntu 22.04", frozenset({"ubuntu"}), (22, 4), Family.DEBIAN, Proof.EXPECTED,
    haproxy=(2, 4), keepalived=(2, 2, 4), bird=(2, 0, 8), nftables=(1, 0, 2),
    systemd=249, kernel=(5, 15),
    modules="linux-modules-extra-", firewall="ufw", resolver="systemd-resolved",
)  # fmt: skip
_RHEL_9 = Distribution(
    "RHEL 9", frozenset({"rhel"}), (9,), Family.RHEL, Proof.EXPECTED,
    haproxy=(2, 4), keepalived=(2, 2), bird=(2,), nftables=(1, 0), systemd=252, kernel=(5, 14),
    names=_RHEL_NAMES, bird_from=Bird.EPEL,
    epel="https://dl.fedoraproject.org/pub/epel/epel-release-latest-9.noarch.rpm",
    modules="kernel-modules-", selinux=True, firewall="firewalld",
)  # fmt: skip
_RHEL_10 = replace(
    _RHEL_9, name="RHEL 10", release=(10,),
    haproxy=(3, 0), bird=None, nftables=(1, 1), systemd=257, kernel=(6, 12),
    epel="https://dl.fedoraproject.org/pub/epel/epel-release-latest-10.noarch.rpm",
)  # fmt: skip


def _rebuilds(rhel: Distribution) -> tuple[Distribution, ...]:
    """The distributions that are built from a release of RHEL."""
    number = rhel.release[0]
    return (
        replace(
            rhel,
            name=f"Rocky Linux, AlmaLinux, CentOS Stream {number}",
            ids=frozenset({"rocky", "almalinux", "centos"}),
            epel="epel-release",
        ),
        replace(
            rhel,
            name=f"Oracle Linux {number}",
            ids=frozenset({"ol"}),
            epel=f"oracle-epel-release-el{number}",
        ),
    )


TABLE: tuple[Distribution, ...] = (
    replace(
        _DEBIAN_12, name="Debian 11", release=(11,), proof=Proof.CHECKED, outdated=True,
        haproxy=(2, 2), keepalived=(2, 1, 5), bird=(2, 0, 7), nftables=(0, 9, 8),
        systemd=247, kernel=(5, 10),
    ),
    _DEBIAN_12,
    replace(
        _DEBIAN_12, name="Debian 13", release=(13,), proof=Proof.CHECKED,
        haproxy=(3, 0), keepalived=(2, 3, 3), bird=(2, 17), nftables=(1, 1, 3),
        systemd=257, kernel=(6, 12),
    ),
    _UBUNTU,
    replace(
        _UBUNTU, name="Ubuntu 24.04", release=(24, 4),
        haproxy=(2, 8), keepalived=(2, 2, 8), bird=(2, 14), nftables=(1, 0, 9),
        systemd=255, kernel=(6, 8),
    ),
    replace(
        _UBUNTU, name="Ubuntu 26.04", release=(26, 4),
        haproxy=(3, 2), keepalived=(2, 3), bird=(2,), nftables=(1, 1),
        systemd=259, kernel=(7, 0),
    ),
    _RHEL_9,
    *_rebuilds(_RHEL_9),
    _RHEL_10,
    *_rebuilds(_RHEL_10),
    replace(
        _RHEL_9, name="Amazon Linux 2023", ids=frozenset({"amzn"}), release=(2023,),
        haproxy=None, keepalived=None, bird=None, nftables=(1, 0), kernel=(6, 1),
        bird_from=Bird.NONE, epel="", selinux=False, firewall="", resolver="systemd-resolved",
    ),
    replace(
        _RHEL_9, name="Fedora", ids=frozenset({"fedora"}), release=(), proof=Proof.NOTHING,
        haproxy=NEWEST, keepalived=None, bird=None, nftables=None, systemd=0, kernel=None,
        bird_from=Bird.OWN, epel="", resolver="systemd-resolved",
    ),
)  # fmt: skip

UNKNOWN = Distribution("an unknown distribution", frozenset(), (), Family.UNKNOWN, Proof.NOTHING)

# Package, by each of its names -> its units. Distributions start the units that they install, but
# clusterctl has its own units for these programs.
UNITS: Mapping[str, str] = {
    "haproxy": "haproxy.service",
    "bird": "bird.service",
    "bird2": "bird.service",
    "keepalived": "keepalived.service",
}
# Packages that add EPEL.
EPEL: tuple[str, ...] = ("epel-release", "oracle-epel-release-el9", "oracle-epel-release-el10")


def find(os_id: str, like: tuple[str, ...], version: str) -> Distribution:
    """Find a machine's distribution.

    Args:
        os_id: `ID` of os-release.
        like: the words of `ID_LIKE`.
        version: `VERSION_ID`; may be empty.

    Returns:
        The row; for a release between two rows, the older row; for a newer release, the newest row
        with programs that are newer than every limit. For an older release or another distribution
        of a known family, a row with the proof NOTHING. `UNKNOWN` for all others.
    """
    release = parse(version)
    rows = sorted((row for row in TABLE if os_id in row.ids), key=lambda row: row.release)
    if rows:
        older = [row for row in rows if row.release <= release]
        if not older:
            # Debian testing and sid have no version.
            limit = OLDEST if release else NEWEST
            return _bound(rows[0 if release else -1], limit, Proof.NOTHING)
        row = older[-1]
        newer = row is rows[-1] and release[: len(row.release)] > row.release
        return _bound(row, NEWEST, Proof.EXPECTED) if newer and row.release else row
    for other in like:
        if rows := [row for row in TABLE if other in row.ids]:
            return replace(_bound(rows[-1], NEWEST, Proof.NOTHING), epel=EPEL[0])
    return UNKNOWN


def _bound(row: Distribution, version: Version, proof: Proof) -> Distribution:
    return replace(
        row,
        proof=proof,
        outdated=False,
        haproxy=version,
        keepalived=version,
        bird=version,
        nftables=version,
    )


def parse(version: str) -> Version:
    """`22.04` -> (22, 4). Parts that are no numbers are left out."""
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
