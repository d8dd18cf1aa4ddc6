# One look at this machine: what it is, and what the cluster installed on it. Changes nothing: what
# `places` writes, it removes. POSIX sh.
#
# The assignments before this line come from script.py; a list has an item on each line.
# It prints sections: a line `@@ NAME`, then the section's lines. parse.py reads them.

# shellcheck disable=SC2046 # words are split on purpose, at newlines only
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
unset CDPATH ENV KUBECONFIG
IFS='
'
set -f

section() { printf '@@ %s\n' "$1"; }
has() { command -v "$1" >/dev/null 2>&1; }
up() { # STATE, in systemd's words
    case $1 in
    active | activating | reloading) return 0 ;;
    *) return 1 ;;
    esac
}

# Slow parts: each runs beside the rest, and its output waits in a pipe.

ctl() {
    timeout 10 "$etcdctl" --command-timeout=4s --endpoints="$etcd_endpoint" \
        --cacert="$etcd_ca" --cert="$etcd_cert" --key="$etcd_key" "$@" 2>&1
}

etcd_view() {
    [ -x "$etcdctl" ] && [ -r "$etcd_key" ] && up "$etcd_state" || return 0
    section etcd-status
    ctl endpoint status --write-out=json || return 0
    section etcd-members
    # Linearizable: an answer means that there is a quorum. Without one: the list that this member has.
    ctl member list --write-out=json && return 0
    section etcd-remembered
    ctl member list --consistency=s --write-out=json
}

api() {
    # No cache: the probe writes nothing here, and the answers differ each time. No garbage
    # collection: it would take a quarter of the 40 ms that this process lives.
    GOGC=400 GOMAXPROCS=1 timeout 12 "$kubectl" --kubeconfig="$admin_conf" --server="$api_server" --request-timeout=10s \
        --cache-dir=/dev/null/none "$@" 2>&1
}

has_api() { [ -x "$kubectl" ] && [ -r "$admin_conf" ] && up "$api_state"; }

api_health() {
    has_api || return 0
    section api-ready
    api get --raw /readyz
    printf '\n'
    section api-version
    api get --raw /version
    printf '\n'
}

# Each apiserver uses its own machine's member: without it, a list hangs until the timeout.
lacks_etcd() { [ -r "$etcd_key" ] && ! up "$etcd_state"; }

api_objects() {
    has_api || return 0
    section api-objects
    if lacks_etcd; then
        echo 'nothing could be listed: etcd does not run on this machine'
        return 0
    fi
    api --namespace=kube-system get nodes,configmaps --output="jsonpath=$objects" ||
        echo "nodes and ConfigMaps could not be listed: kubectl's exit status is $?"
}

# The objects of all these manifests that exist: one request each, but a single kubectl.
live() { # TEMPLATE FILES
    template=$1
    shift
    # A second file, even an empty one: for a single file with one object kubectl prints no list.
    set -- -f /dev/null $(for file; do [ ! -f "$file" ] || printf -- '-f\n%s\n' "$file"; done)
    [ $# -eq 2 ] || api get --ignore-not-found --output="jsonpath=$template" "$@" ||
        echo "kubectl's exit status is $?"
}

api_manifests() {
    has_api && ! lacks_etcd || return 0
    section authority
    cat "$authority"
    section manifests
    there=$(live "$objects_of_manifests" $manifests)
    printf '%s\n' "$there"
    # It gave no answer in time: do not ask again.
    case $there in *"kubectl's exit status is 124"*) return 0 ;; esac
    # Why pods are not ready: only if some are not.
    for namespace in $(printf '%s\n' "$there" | awk -F '\t' '
        $1 == "pods" && !($3 == $4 && $4 == $5 && $5 == $6) && !seen[$2]++ { print $2 }'); do
        api --namespace="$namespace" get pods --output="jsonpath=$pods_of_addons"
    done
    [ -n "$given_manifests" ] || return 0
    section given-manifests
    live "$objects_of_given_manifests" $given_manifests
}

reaches() {
    [ -n "$peers" ] && ! [ -d "$record" ] && has bash && has timeout || return 0
    section peers
    printf '%s\n' "$peers"
    section reaches
    # timeout ends the whole group: a connection that is not open by then prints nothing.
    timeout 2 bash -c 'for peer; do
        (exec 3<>"/dev/tcp/${peer% *}/${peer#* }" && echo "${peer% *}") 2>/dev/null &
    done; wait' bash $peers
}

downloads_answer() {
    [ -n "$downloads" ] && ! [ -d "$record" ] && has timeout || return 0
    has curl || has wget || return 0
    section downloads
    printf '%s\n' "$downloads"
    section download-answers
    for each in $downloads; do
        # An HTTP status of any kind is an answer: a registry may demand a password here. Publishers
        # send a client that asks for a file to another server.
        (
            [ -z "$http_proxy" ] || export http_proxy
            [ -z "$https_proxy" ] || export https_proxy
            export no_proxy
            url=${each#* }
            if has curl; then
                curl --silent --head --location --output /dev/null --max-time 5 "$url"
            else
                timeout 5 wget --quiet --tries=1 --spider "$url" || [ $? = 8 ]
            fi && echo "${each%% *}"
        ) 2>/dev/null &
    done
    wait
}

virtual_address() {
    [ -n "$vip" ] && ! grep -qswF "$vip" "$keepalived" && has bash && has timeout || return 0
    section virtual-address
    # A refused connection is an answer too.
    answer=$(timeout 0.5 bash -c ": <>/dev/tcp/$vip/$api_port" 2>&1) && echo answers
    case $answer in *refused*) echo answers ;; esac
}

# The machine itself.

# The server in a resolv.conf that only the machine itself reaches, if there is one.
own_resolver() { # FILE
    awk '$1 == "nameserver" && $2 ~ /^(127\.|::1(%|$)|0\.0\.0\.0$|::ffff:127\.)/ {print $2; exit}' "$1"
}

facts() {
    section facts
    read -r hostname </proc/sys/kernel/hostname
    read -r kernel </proc/sys/kernel/osrelease
    read -r machine_id </etc/machine-id
    read -r init </proc/1/comm
    printf '%s\n' "uid=$(id -u)" "hostname=$hostname" "kernel=$kernel" "machine_id=$machine_id" \
        "init=$init" "arch=$(uname -m)" "cpus=$(nproc)"
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo cgroup=2; else echo cgroup=1; fi
    if has systemd-detect-virt; then
        printf 'container=%s\n' "$(systemd-detect-virt --container)"
    else
        tr '\0' '\n' </proc/1/environ | sed -n 's/^container=/&/p'
    fi
    resolver=$(own_resolver "$resolv_conf")
    if [ -n "$resolver" ]; then
        for upstream in $upstreams; do
            [ -s "$upstream" ] && grep -qs '^nameserver' "$upstream" || continue
            [ -n "$(own_resolver "$upstream")" ] || { resolver= && resolv_conf=$upstream && break; }
        done
    fi
    printf '%s\n' "resolver=$resolver" "resolv_conf=$resolv_conf"
    [ ! -d "$etcd_data/member" ] || echo etcd_data=yes
    # A restore that is killed between two renames leaves the data beside their place.
    [ ! -e "$restoring" ] || [ ! -d "$etcd_data/before-restore" ] || echo etcd_data=yes
    [ ! -e "$etcd_formed" ] || echo etcd_formed=yes
    [ ! -e "$etcd_join" ] || echo etcd_joining=yes
    [ ! -e "$restoring" ] || sed -n '1s/^/restoring=/p' "$restoring"
    [ ! -e "$unfinished" ] || sed -n '1s/^/unfinished=/p' "$unfinished"
    [ ! -s "$kubelet_client" ] || echo registered=yes
    awk '/^CapBnd:/ {print "capabilities=" $2}' /proc/1/status
    awk '/^MemTotal:/ {print "memory=" $2}' /proc/meminfo
    section os-release
    awk '/^(ID|ID_LIKE|VERSION_ID|PRETTY_NAME)=/' /etc/os-release
    section systemd
    systemctl --version
    section swaps
    cat /proc/swaps
    section disk
    df -Pm / /var/lib
    section addresses
    ip -4 -o addr show
    section routes
    ip -4 route show
}

# Whether the cluster's directories can be written, and whether programs run from them. On a new
# machine this makes a file in each directory, runs it, and removes it.
places() {
    [ -n "$places" ] || return 0
    section places
    set --
    for place in $places; do
        there=$place
        until [ -e "$there" ] || [ -L "$there" ]; do
            there=${there%/*}
            there=${there:-/}
        done
        printf '%s\t%s\n' "$place" "$there"
        [ -d "$there" ] || continue
        case $IFS$*$IFS in
        *"$IFS$there$IFS"*) ;;
        *) set -- "$@" "$there" ;;
        esac
    done
    section directories
    printf '%s\n' "$@"
    section space
    df -Pm -- "$@"
    section inodes
    df -Pi -- "$@"
    section tried
    if [ -d "$record" ]; then
        for there; do
            [ -w "$there" ] || printf 'write\t%s\tRead-only file system\n' "$there"
        done
        return 0
    fi
    trial=.clusterctl-check.$$
    (
        trap 'for there; do rm -f -- "$there/$trial"; done' EXIT
        trap exit HUP INT TERM
        umask 077
        set -C
        for there; do
            said=$( (printf '#!/bin/sh\n' >"$there/$trial") 2>&1) ||
                printf 'write\t%s\t%s\n' "$there" "${said##*: }"
        done
        for there; do
            [ ! -e "$there/$trial" ] || chmod 700 -- "$there/$trial"
            [ ! -e "$there/$trial" ] || "$there/$trial" || printf 'run\t%s\n' "$there"
        done
    )
}

kernel_features() {
    section filesystems
    cat /proc/filesystems
    section features
    features="overlay${IFS}nf_tables${IFS}nf_conntrack${IFS}br_netfilter"
    for rule in $rules; do
        features=$features$IFS${rule%% *}
    done
    for feature in $features; do
        [ ! -e "/sys/module/$feature" ] || printf '%s\n' "$feature"
    done
    [ ! -e /proc/sys/net/netfilter/nf_conntrack_max ] || echo nf_conntrack
    [ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || echo br_netfilter
    # A missing module may be loaded, but only on a machine that has its own kernel.
    modules=$all_modules/$kernel
    if [ -e "$modules/modules.dep" ]; then
        section modules
        cat "$modules/modules.dep" "$modules/modules.builtin" |
            sed 's/:.*//; s/.*\///; s/\.ko.*//; s/-/_/g' | grep -xF -- "$features"
    # A kernel that has loaded no module may have everything built in.
    elif [ -s "$loaded_modules" ] && (set +f && ls "$all_modules"/*/modules.dep >/dev/null); then
        section modules-removed
    fi
}

# Whether the kernel takes the rules that the cluster needs. nft's check asks it, and changes nothing.
nftables() {
    [ -n "$rules" ] || return 0
    section rules
    for rule in $rules; do
        printf '%s\n' "${rule%% *}"
    done
    # Not in a cluster: nft would read every rule of kube-proxy.
    [ ! -d "$record" ] && has nft || return 0
    refused=
    printf '%s\n' "$rules" | cut -d ' ' -f 2- | nft -c -f - || for rule in $rules; do
        said=$(printf '%s\n' "${rule#* }" | nft -c -f - 2>&1) || case $said in
        *'No such file or directory'* | *'ot supported'* | *'Invalid argument'*)
            refused=$refused${rule%% *}$IFS
            ;;
        # Other errors (no permission, no memory, another syntax) say nothing about the kernel.
        *) return 0 ;;
        esac
    done
    section refused-rules
    printf '%s' "$refused"
}

ports() {
    if has ss; then
        section sockets
        sockets=$(ss -Hlntup)
        printf '%s\n' "$sockets"
        set --
        # If several processes hold it: the first one, as the parser does.
        for pid in $(printf '%s\n' "$sockets" |
            sed -n 's/^[^"]*"[^"]*",pid=\([0-9]*\).*/\1/p' | sort -u); do
            set -- "$@" "/proc/$pid/cgroup"
        done
        section cgroups
        # For a single file head prints no name: so a second, empty one is added.
        [ $# -eq 0 ] || head -n 30 "$@" /dev/null
    else
        for table in tcp tcp6 udp udp6; do
            section "proc-net $table"
            cat "/proc/net/$table"
        done
    fi
}

lock() {
    section lock
    sh -c "$who_holds_the_lock"
}

# Settings of the cluster that no change of a file can change, as its programs have them.
for_life() {
    section for-life
    sed -n 's/^  --\(cluster-cidr\|node-cidr-mask-size\|service-cluster-ip-range\|service-account-issuer\)=\([^ ]*\).*/\1=\2/p' \
        "$units_directory/kube-apiserver.service" "$units_directory/kube-controller-manager.service" 2>/dev/null
    sed -n 's/^clusterDomain: /domain=/p' "$kubelet_config" 2>/dev/null
}

# The pod network, as it works now.
pods() {
    [ -s "$conflist" ] || return 0
    section pods
    sed -n 's/.*"subnet": "\([0-9./]*\)".*/cidr=\1/p; s/.*"mtu": \([0-9]*\).*/mtu=\1/p' "$conflist"
    ip -o -4 address show dev cni0 2>/dev/null | awk '{print "bridge=" $4; exit}'
    section pod-routes
    ip -4 route show proto bird | awk '{print $1}'
    section neighbours
    [ ! -S "$bird" ] || timeout 2 birdc -s "$bird" show ospf neighbors | awk '$1 ~ /^[0-9.]+$/ {print $1 "=" $3}'
    section unmapped
    rules=
    # The loopback interface has a result of its own, with the same ports.
    for result in $(grep -rlsi --include='pods-*-eth0' '"hostPort":[1-9]' "$results"); do
        [ -n "$rules" ] || rules=$(nft list table ip cni_hostport || echo none)
        sandbox=${result##*/pods-}
        case $rules in *"${sandbox%-eth0}"*) continue ;; esac
        # After a boot there are results of pods that ended.
        [ -e "$(sed -n 's/.*"sandbox":"\([^"]*\)".*/\1/p' "$result")" ] || continue
        # The file has no newline at its end, and so sed writes none.
        printf '%s\n' "$(sed -n 's/.*\["K8S_POD_NAMESPACE","\([^"]*\)"\],\["K8S_POD_NAME","\([^"]*\)"\].*/\1\/\2/p' "$result")"
    done
}

# Images in this master's registry, as REPOSITORY:TAG@DIGEST.
registry_images() {
    [ -d "$repositories" ] || return 0
    section registry-images
    set -- $(find "$repositories" \( -name _layers -o -name revisions \) -prune -o \
        -path '*/_manifests/tags/*/current/link' -print)
    [ $# -eq 0 ] || awk -v home="$repositories/" '{
        name = substr(FILENAME, length(home) + 1)
        sub("/current/link$", "", name)
        sub("/_manifests/tags/", ":", name)
        print name "@" $0
    }' "$@"
}

foreign() {
    section foreign
    for sign in $signs; do
        [ ! -e "$sign" ] || printf '%s\n' "$sign"
    done
}

firewalls() {
    section firewalls
    ! up "$firewalld_state" || echo firewalld
    # The unit of ufw is active even if ufw is off.
    ! grep -qsix 'enabled=yes' "$ufw" || echo ufw
}

packet_filter() {
    # A program that asks for a table of the old iptables creates it: so look first.
    if grep -qsx filter /proc/net/ip_tables_names; then
        section iptables-legacy
        iptables-legacy-save -t filter || iptables-save -t filter
    fi
    if has iptables-nft-save; then
        section iptables
        iptables-nft-save -t filter
    fi
    # Not in a cluster: nft would read every rule of kube-proxy.
    [ ! -d "$record" ] && has nft || return 0
    section ruleset
    nft list ruleset
}

selinux() {
    section selinux
    for name in $selinux_booleans; do
        # Two numbers: the present value and the pending one.
        [ ! -e "$selinux/booleans/$name" ] || printf '%s %s\n' "$name" "$(cat "$selinux/booleans/$name")"
    done
    [ ! -e "$selinux/enforce" ] || printf 'enforce %s\n' "$(cat "$selinux/enforce")"
}

# What the cluster installed here.

managed() {
    section record
    recorded=$(set +f && awk '
        FNR == 1 { name = FILENAME; sub(/.*\//, "", name); print "component\t" name }
        1' "$record"/*)
    printf '%s\n' "$recorded"
    set -- $(printf '%s\n' "$recorded" | awk -F '\t' '/^(file|dir|binary|cert|key)\t/ {print $2}') \
        $files $certificates
    section stat
    [ $# -gt 0 ] || return 0
    stats=$(stat --printf='%F\t%a\t%U\t%G\t%s\t%i\t%.9Y\t%.9Z\t%n\n' -- "$@")
    printf '%s\n' "$stats"

    section sha256
    # Small files always; binaries if they differ from the record, or if all hashes were requested.
    set -- $(printf '%s\n' "$recorded" "$stats" | awk -F '\t' -v "deep=$deep" '
        $1 == "binary" { installed[$2] = $6 FS $7 FS $8 FS $9; next }
        $1 !~ /^regular/ || NF != 9 || seen[$9]++ { next }
        !($9 in installed) { if ($5 < 1048576) print $9; next }
        {
            exact = $5 FS $6 FS $7 FS $8
            sub(/\..*/, "", $7)
            sub(/\..*/, "", $8)
            whole = $5 FS $6 FS $7 FS $8
            if (deep || (installed[$9] != exact && installed[$9] != whole)) print $9
        }')
    # The hash of a key leaves the machine only if it is the recorded one.
    [ $# -eq 0 ] || sha256sum -- "$@" | { printf '%s\n' "$recorded" && cat; } | awk -F '\t' '
        $1 == "key" { key[$2] = $3 }
        NF > 1 || !/^[0-9a-f]+  \// { next }
        { hash = substr($0, 1, 64); path = substr($0, 67) }
        !(path in key) || key[path] == hash'

    section certificates
    set -- $(printf '%s\n' "$recorded" "$stats" | given=$certificates awk -F '\t' '
        BEGIN { n = split(ENVIRON["given"], path, "\n"); while (n > 0) wanted[path[n--]] }
        $1 == "cert" { wanted[$2] }
        /^regular/ && $9 in wanted && !seen[$9]++ { print $9 }')
    case $IFS$*$IFS in
    *"$IFS$kubelet_client$IFS"*) ;;
    *) [ ! -s "$kubelet_client" ] || set -- "$@" "$kubelet_client" ;;
    esac
    # Only certificates: a file may contain a key too.
    [ $# -eq 0 ] || awk '
        FNR == 1 { inside = 0; print "file " FILENAME }
        /^-----BEGIN / { inside = /^-----BEGIN CERTIFICATE-----/ }
        inside
        /^-----END / { inside = 0 }' "$@"
}

units() {
    section asked
    printf '%s\n' "$asked_units"
    section units
    set -- $(printf '%s\n' "$recorded" | awk -F '\t' '$1 == "unit" {print $2}') $asked_units $suspects
    systemctl show --no-pager --property=Id,Names,LoadState,ActiveState,SubState,UnitFileState \
        --property=NeedDaemonReload,NRestarts,ActiveEnterTimestampMonotonic -- "$@"
}

tables() {
    [ -d "$record" ] && has nft || return 0
    section asked-tables
    printf '%s\n' "$tables"
    section tables
    # By name: to list all tables, nft first reads every rule of kube-proxy.
    for table in $tables; do
        case $table in
        *kube-proxy) nft "list chain $table nat-prerouting" ;;
        *) nft "list table $table" ;;
        esac >/dev/null && printf '%s\n' "$table"
    done
}

packages() {
    section packages
    [ -n "$asked_packages" ] || return 0
    if has dpkg-query; then
        dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' -- $asked_packages
    elif has rpm; then
        rpm --query --queryformat 'installed %{NAME}\n' -- $asked_packages
    fi
}

machine() {
    facts
    places
    kernel_features
    nftables
    ports
    lock
    for_life
    pods
    registry_images
    foreign
    firewalls
    packet_filter
    selinux
    managed
    units
    tables
    packages
}

section address
printf '%s\n' "$address"
section begin
date +%s.%N
set -- $(systemctl is-active etcd.service kube-apiserver.service firewalld.service 2>/dev/null)
etcd_state=${1:-} api_state=${2:-} firewalld_state=${3:-}
{
    api_objects | {
        exec 3<&0
        api_health | {
            exec 4<&0
            etcd_view | {
                exec 5<&0
                { reaches; downloads_answer; virtual_address; } | {
                    exec 6<&0
                    api_manifests | {
                        exec 7<&0
                        machine </dev/null
                        cat <&7
                    }
                    cat <&6
                }
                cat <&5
            }
            cat <&4
        }
        cat <&3
    }
} 2>/dev/null
section end
date +%s.%N
exit 0
