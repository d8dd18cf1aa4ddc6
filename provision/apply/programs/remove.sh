# Parameters: state, record, units_directory, kernel, interfaces, settings, order, new. Order: all units, each before what it needs.
# The programs after this part set `lines`: the lines of the record that name what to remove.
set -u
[ -d "$record" ] || { rm -rf -- "$state"; exit 0; }
exec 9>"$state/lock"
flock -w 100 9 || { echo 'another run is still busy on this machine' >&2; exit 1; }

field() { # KIND N
    printf '%s\n' "$lines" | awk -F '\t' -v kind="$1" -v n="$2" '$1 == kind {print $n}' | sort -u
}

remove() {
    units=$(field unit 2 | awk -v first="$order" '
        {there[$0]}
        END {
            n = split(first, unit, " ")
            for (i = 1; i <= n; i++) if (unit[i] in there) {print unit[i]; delete there[unit[i]]}
            for (name in there) print name
        }')
    users=$(field user 2)
    paths=$( (field file 2; field binary 2; field cert 2; field key 2; field leftover 2) | sort -u)
    # A directory of the system existed before clusterctl came, and may be empty.
    directories=$(field dir 2 | grep -v '^/usr/' | sort -r)
    left=""
    if [ -n "$units" ]; then
        # Each before what it needs. systemctl asks for one after the other, and systemd orders only
        # what it has been asked for: etcd may have stopped before systemd hears of the apiserver,
        # which then cannot end without etcd, and is killed after 90 s.
        systemctl --quiet stop $units 2>/dev/null
        systemctl --quiet disable $units 2>/dev/null
    fi
    printf '%s\n' "$lines" | sed -n 's/^cleanup\t//p' | while IFS= read -r cleanup; do
        sh -c "$cleanup" </dev/null >/dev/null 2>&1
    done
    for mount in $(awk '{print $2}' /proc/mounts | sort -r); do
        for path in $paths; do
            # A volume of the machine's own that is mounted at the path stays. Mounts below the path
            # are the cluster's.
            case $mount in "$path"/*) umount -l "$mount" 2>/dev/null ;; esac
        done
    done
    for path in $paths; do
        case $path in /*/*) ;; *) continue ;; esac
        if [ -d "$path" ] && [ ! -L "$path" ]; then
            find "$path" -mindepth 1 -xdev -delete 2>/dev/null
            rmdir "$path" 2>/dev/null || mountpoint -q "$path" || left="$left $path"
        else
            rm -f -- "$path" "$path$new"
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
        if [ -e "$units_directory/$unit" ]; then left="$left $unit"; fi
    done
}

judge() {
    if [ -n "$left" ]; then echo "still there:$left" >&2; exit 1; fi
}

