lines=$(cat "$record"/*)
# Kernel settings. One that an older clusterctl changed has no line: its earlier value is not known.
unknown=$(awk '$2 == "=" {print $1, $3}' "$settings" 2>/dev/null | while read -r key value; do
    path=$kernel/$(echo "$key" | tr . /)
    field sysctl 2 | grep -qxF "$path" || [ "$(cat "$path" 2>/dev/null)" != "$value" ] ||
        echo "$key = $value"
done)
remove
printf '%s\n' "$lines" | awk -F '\t' '$1 == "sysctl"' | while IFS='	' read -r _ path before value; do
    # Another program may have set it since, or need it.
    [ "$(cat "$path" 2>/dev/null)" = "$value" ] && [ "$before" != "$value" ] || continue
    case $path in */ip_forward) [ ! -e "$interfaces/docker0" ] && [ ! -e "$interfaces/virbr0" ] || continue ;; esac
    key=$(echo "${path#"$kernel"/}" | tr / .)
    grep -Eqs "^[[:space:]]*${key}[[:space:]]*=[[:space:]]*${value}[[:space:]]*$" \
        "${settings%/*}"/*.conf "${settings%/*/*}/sysctl.conf" || echo "$before" >"$path"
done 2>/dev/null
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
    # The package leaves its chroot behind, with a socket that the system's log made in it.
    if [ "$package" = haproxy ]; then rm -rf /var/lib/haproxy; fi
done
judge
rm -rf -- "$state"
[ -z "$unknown" ] || printf '%s\n' "$unknown"
