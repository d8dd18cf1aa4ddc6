"""Names of packages in each distribution, and the programs that install packages on Debian."""

from __future__ import annotations

from provision.model.facts import Facts

# Debian's name -> the name in the RHEL family (with Amazon Linux 2023), if that differs.
RHEL = {
    "bird2": "bird",
    "conntrack": "conntrack-tools",
    "iproute2": "iproute",
    "openssh-client": "openssh-clients",
    "procps": "procps-ng",
}
# Packages that add the repository EPEL, which has BIRD; Oracle Linux has its own name for it.
EPEL = ("epel-release", "oracle-epel-release-el9", "oracle-epel-release-el10")
# The RHEL family always has curl, often in the package curl-minimal, which conflicts with curl.
_RHEL_HAS = frozenset({"curl"})


def of_distribution(facts: Facts, *names: str) -> tuple[str, ...]:
    """Translate Debian's names of packages for the machine's distribution."""
    if facts.os_family == "debian":
        return names
    return tuple(RHEL.get(name, name) for name in names if name not in _RHEL_HAS)


# A new machine installs packages by itself (cloud-init, apt-daily, unattended-upgrades). apt's
# option DPkg::Lock::Timeout waits for dpkg's lock only, not for apt's other locks. dnf waits for
# all its locks.
_APT_GET = """\
apt_get() { # ARGUMENT...
    end=$(($(date +%s) + 300))
    until said=$(LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -qq -y "$@" 2>&1); do
        case $said in
        *"Could not get lock"*) [ "$(date +%s)" -ge "$end" ] || { sleep 3 && continue; } ;;
        esac
        printf '%s\n' "$said" >&2
        return 1
    done
    printf '%s\n' "$said"
}
"""
_STAMP = "/var/lib/apt/periodic/update-success-stamp"  # Ubuntu itself also uses this file
_KEEP = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"

# Shell programs for the Debian family, to be run in this order. Each waits up to five minutes while
# another process holds apt's locks. The arguments of the second program are names of packages.
APT_UPDATE = f"""{_APT_GET}\
find {_STAMP} -mmin -60 2>/dev/null | grep -q . || {{ apt_get update && touch {_STAMP}; }}"""
APT_INSTALL = f"""{_APT_GET}\
apt_get {_KEEP} --no-install-recommends install "$@\""""
