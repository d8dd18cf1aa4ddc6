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
    # The package leaves its chroot behind, with a socket that the system's log made in it.
    if [ "$package" = haproxy ]; then rm -rf /var/lib/haproxy; fi
done
judge
rm -rf -- "$state"
