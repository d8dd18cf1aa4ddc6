"""The packages that machines need, and the program that installs packages on Debian."""

from __future__ import annotations

from collections.abc import Iterable

from provision.model.distribution import TABLE, UNITS

# Debian's names of all packages that a machine of any cluster may need.
NAMES: tuple[str, ...] = (
    "zstd", "conntrack", "nftables", "ethtool", "kmod", "iproute2", "iptables", "haproxy", "bird2",
    "keepalived", "curl", "openssl", "openssh-client", "netbase",
)  # fmt: skip
# The same packages, by their names in every distribution.
PACKAGES: tuple[str, ...] = tuple(
    dict.fromkeys(name for row in TABLE for name in row.packages(*NAMES))
)


def own_units(packages: Iterable[str]) -> tuple[str, ...]:
    """Give the packages' units of programs for which clusterctl has its own units."""
    return tuple(dict.fromkeys(UNITS[name] for name in packages if name in UNITS))


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
# warning if the other sources have the packages. Debian starts the units of new packages. So
# during the installation the program masks those units that clusterctl replaces by its own.
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
