"""Names of packages in each distribution, and the program that installs packages on Debian."""

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
apt_get() { # ARGUMENT...: exit status 2 if another process kept the lock
    end=$(($(date +%s) + 300))
    until said=$(LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -qq -y "$@" 2>&1); do
        case $said in
        *"Could not get lock"*)
            [ "$(date +%s)" -ge "$end" ] || { sleep 3 && continue; }
            printf '%s\n' "$said" >&2
            return 2
            ;;
        esac
        printf '%s\n' "$said" >&2
        return 1
    done
    printf '%s\n' "$said"
}
"""
_STAMP = "/var/lib/apt/periodic/update-success-stamp"  # Ubuntu itself also uses this file
_KEEP = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"

# Shell program for the Debian family; its arguments are names of packages. It waits up to five
# minutes while another process holds apt's locks. A source of packages that does not answer is only a
# warning if the other sources have the packages. Debian starts the units of what it installs: those
# that would run beside clusterctl's own units of the same programs are masked meanwhile.
APT_INSTALL = f"""{_APT_GET}\
find {_STAMP} -mmin -60 2>/dev/null | grep -q . || {{
    apt_get update && touch {_STAMP} || [ $? = 1 ] || exit 1
}}
units=
for package; do
    case $package in
    bird2) units="$units bird.service" ;;
    haproxy | keepalived) units="$units $package.service" ;;
    esac
done
[ -z "$units" ] || {{
    trap 'systemctl --quiet --runtime unmask $units' EXIT
    trap exit HUP INT TERM
    systemctl --quiet --runtime mask $units 2>/dev/null
}}
apt_get {_KEEP} --no-install-recommends install "$@\""""
