# One look at this machine: how its processes run, and the permissions of its files. Changes
# nothing. POSIX sh.
#
# Lines `look PATTERN FILES...` follow, written by probe.py. It prints sections: a line `@@ NAME`,
# then the section's lines. probe.py reads them.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

pid() { # UNIT
    case $1 in
    kube-apiserver) echo "$kube_apiserver" ;;
    kube-controller-manager) echo "$kube_controller_manager" ;;
    kube-scheduler) echo "$kube_scheduler" ;;
    etcd) echo "$etcd" ;;
    kubelet) echo "$kubelet" ;;
    kube-proxy) echo "$kube_proxy" ;;
    esac
}

arguments() { tr '\0' '\n' <"/proc/$(pid "$1")/cmdline" | sed 1d; }

given() { # UNIT FLAG: the last value that its process was given
    arguments "$1" | awk -v flag="--$2" '
        next_is_value { value = $0; next_is_value = 0; next }
        $0 == flag { next_is_value = 1 }
        index($0, flag "=") == 1 { value = substr($0, length(flag) + 2) }
        END { print value }'
}

written() { # UNIT FIELD: the value in its file
    sed -n "s/^ *$2: *//p" "$(given "$1" config)" | tr -d '"'
}

look() { # PATTERN FILES...
    printf '@@ files %s\n' "$1"
    shift
    for file; do
        [ ! -e "$file" ] || stat -L -c '%a %U:%G %n' -- "$file"
    done
}

below() { # DIRECTORY FIND-ARGUMENTS...: arguments for look, as lines
    [ ! -d "$1" ] || find "$@"
}

# shellcheck disable=SC2046 # a word for each unit
set -- $(systemctl show --property=MainPID --value -- \
    kube-apiserver kube-controller-manager kube-scheduler etcd kubelet kube-proxy)
kube_apiserver=${1:-0} kube_controller_manager=${2:-0} kube_scheduler=${3:-0}
etcd=${4:-0} kubelet=${5:-0} kube_proxy=${6:-0}

for unit in kube-apiserver kube-controller-manager kube-scheduler etcd kubelet kube-proxy; do
    [ "$(pid $unit)" != 0 ] || continue
    printf '@@ arguments %s\n' "$unit"
    arguments $unit
done
if [ "$etcd" != 0 ]; then
    printf '@@ environment etcd\n'
    tr '\0' '\n' <"/proc/$etcd/environ" | grep '^ETCD_'
fi
for unit in kubelet kube-proxy; do
    file=$(given $unit config 2>/dev/null)
    [ -n "$file" ] || continue
    printf '@@ config %s\n' "$unit"
    cat "$file"
done
if [ "$kube_apiserver" != 0 ]; then
    # The first provider encrypts. Print its name only: the key is in the same file.
    printf '@@ arguments encryption\n'
    grep -oE '^ *- *(aescbc|aesgcm|identity|kms|secretbox):' \
        "$(given kube-apiserver encryption-provider-config)" |
        head -n 1 | tr -cd 'a-z\n' | sed 's/^/--provider=/'
fi
IFS='
'
