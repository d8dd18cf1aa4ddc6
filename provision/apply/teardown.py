"""The programs that remove what clusterctl put on a machine: all that its record names, or a part.

Pure: text in, text out. They touch no rule, interface or mount that is not in the record, flush
nothing, and do not restart networking. Each program can be killed at any line and run again: it
removes a thing first, and its line of the record last.
"""

from __future__ import annotations

from collections.abc import Iterable

from provision.desired.catalog import UNITS
from provision.model import paths
from provision.model.paths import NEW
from provision.plan.record import Removal

# Both programs set `lines`: the lines of the record that name what to remove.
_REMOVE = f"""\
set -u
record={paths.RECORD}
[ -d "$record" ] || {{ rm -rf -- {paths.STATE}; exit 0; }}
exec 9>{paths.STATE}/lock
flock -w 100 9 || {{ echo 'another run is still busy on this machine' >&2; exit 1; }}

field() {{ # KIND N
  printf '%s\\n' "$lines" | awk -F '\\t' -v kind="$1" -v n="$2" '$1 == kind {{print $n}}' | sort -u
}}

remove() {{
  units=$(field unit 2 | awk -v first='{" ".join(reversed(UNITS))}' '
    {{there[$0]}}
    END {{
      n = split(first, unit, " ")
      for (i = 1; i <= n; i++) if (unit[i] in there) {{print unit[i]; delete there[unit[i]]}}
      for (name in there) print name
    }}')
  users=$(field user 2)
  paths=$( (field file 2; field binary 2; field cert 2; field key 2; field leftover 2) | sort -u)
  # A directory of the system was there before us, and may be empty.
  directories=$(field dir 2 | grep -v '^/usr/' | sort -r)
  left=""
  if [ -n "$units" ]; then
    # Each before what it needs. systemctl asks for one after the other, and systemd orders what it
    # has been asked for: etcd may have stopped before it hears of the apiserver, which then takes
    # until it is killed, after 90 s, to end without it.
    systemctl --quiet stop $units 2>/dev/null
    systemctl --quiet disable $units 2>/dev/null
  fi
  printf '%s\\n' "$lines" | sed -n 's/^cleanup\\t//p' | while IFS= read -r cleanup; do
    sh -c "$cleanup" </dev/null >/dev/null 2>&1
  done
  for mount in $(awk '{{print $2}}' /proc/mounts | sort -r); do
    for path in $paths; do
      # A volume of the machine's own that is mounted there stays; what lies deeper is ours.
      case $mount in "$path"/*) umount -l "$mount" 2>/dev/null ;; esac
    done
  done
  for path in $paths; do
    case $path in /*/*) ;; *) continue ;; esac
    if [ -d "$path" ] && [ ! -L "$path" ]; then
      find "$path" -mindepth 1 -xdev -delete 2>/dev/null
      rmdir "$path" 2>/dev/null || mountpoint -q "$path" || left="$left $path"
    else
      rm -f -- "$path" "$path{NEW}"
    fi
    [ ! -e "$path" ] || mountpoint -q "$path" || left="$left $path"
  done
  for directory in $directories; do rmdir -- "$directory" 2>/dev/null; done
  if [ -n "$units" ]; then
    systemctl daemon-reload
    systemctl reset-failed $units 2>/dev/null
  fi
  for user in $users; do userdel "$user" 2>/dev/null; groupdel "$user" 2>/dev/null; done
  for unit in $units; do
    if [ -e "{paths.UNITS}/$unit" ]; then left="$left $unit"; fi
  done
}}

judge() {{
  if [ -n "$left" ]; then echo "still there:$left" >&2; exit 1; fi
}}
"""

DOWN = f"""\
{_REMOVE}
lines=$(cat "$record"/*)
remove
for directory in $directories; do
  case $directory in /etc/clusterctl*|/etc/kubernetes*|/etc/etcd*|/var/lib/kube*)
    if [ -e "$directory" ] && ! mountpoint -q "$directory"; then left="$left $directory"; fi ;;
  esac
done
packages=$(field package 2)
if [ -n "$packages" ]; then
  if command -v apt-get >/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get purge -y -qq $packages >/dev/null 2>&1 || left="$left packages:$packages"
  else
    dnf remove -y -q $packages >/dev/null 2>&1 || left="$left packages:$packages"
  fi
fi
for package in $packages; do
  # Its chroot, with a socket that the system's log made there; the package leaves it behind.
  if [ "$package" = haproxy ]; then rm -rf /var/lib/haproxy; fi
done
judge
rm -rf -- {paths.STATE}
"""

REMOVE = f"""\
{_REMOVE}
lines=$(cat)
remove
judge
for component in $(field component 2); do
  ours=$record/$component
  [ -e "$ours" ] || continue
  printf '%s\\n' "$lines" | awk -F '\\t' -v name="$component" '
    FILENAME == "-" && $1 == "component" {{ on = ($2 == name); next }}
    FILENAME == "-" {{ if (on) {{ sub(/^forget\\t/, ""); gone[$0] }} next }}
    !($0 in gone)' - "$ours" >"$ours{NEW}" || exit 1
  if [ -s "$ours{NEW}" ]; then
    sync "$ours{NEW}"
    mv -fT "$ours{NEW}" "$ours"
  else
    rm -f -- "$ours" "$ours{NEW}"
  fi
done
"""


def unwanted(removals: Iterable[Removal]) -> str:
    """What `REMOVE` reads on stdin: lines of the record, each group after its component's name."""
    lines: list[str] = []
    for removal in removals:
        lines.append(f"component\t{removal.component}")
        lines += ["\t".join(line) for line in removal.lines]
        lines += ["\t".join(("forget", *line)) for line in removal.forget]
    return "\n".join(lines)
