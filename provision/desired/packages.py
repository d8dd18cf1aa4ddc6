"""Names of packages where distributions differ, and how Debian's are installed."""

from __future__ import annotations

from provision.model.facts import Facts

# Debian's name -> that of the RHEL family (Amazon Linux 2023 included), where it is another.
RHEL = {
    "bird2": "bird",
    "conntrack": "conntrack-tools",
    "iproute2": "iproute",
    "openssh-client": "openssh-clients",
    "procps": "procps-ng",
}
# What brings the repository that has BIRD; Oracle's has a name of its own.
EPEL = ("epel-release", "oracle-epel-release-el9", "oracle-epel-release-el10")
# The RHEL family always has it, often as curl-minimal, which conflicts with curl.
_RHEL_HAS = frozenset({"curl"})


def of_distribution(facts: Facts, *names: str) -> tuple[str, ...]:
    """The names, given as Debian has them, as this machine's distribution has them."""
    if facts.os_family == "debian":
        return names
    return tuple(RHEL.get(name, name) for name in names if name not in _RHEL_HAS)


# A machine that has just started installs by itself (cloud-init, apt-daily, unattended-upgrades). Of
# apt's locks its own DPkg::Lock::Timeout waits for dpkg's alone; dnf waits for all of its own.
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
_STAMP = "/var/lib/apt/periodic/update-success-stamp"  # Ubuntu's own
_KEEP = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"

# Shell programs for Debian and its likes, one after the other; each waits for up to five minutes
# while somebody else holds apt's locks. The second one's arguments are names of packages.
APT_UPDATE = f"""{_APT_GET}\
find {_STAMP} -mmin -60 2>/dev/null | grep -q . || {{ apt_get update && touch {_STAMP}; }}"""
APT_INSTALL = f"""{_APT_GET}\
apt_get {_KEEP} --no-install-recommends install "$@\""""
