# Every certificate of the cluster on this machine, and the kubeconfigs that use them. POSIX sh.
# Changes nothing, and prints no key: a file may contain one beside its certificate.
#
# It prints sections: `@@ file PATH` and the PEM blocks of certificates in it, then
# `@@ config PATH` and the lines of that kubeconfig which name certificates. listing.py reads them.

# shellcheck disable=SC2046 # words are split on purpose, at newlines only
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
IFS='
'

# The kubelet keeps old client certificates beside a link to the present one.
set -- $(find /etc/kubernetes /etc/etcd /var/lib/kubelet/pki \( -name '*.crt' -o -name '*.pem' \) \
    ! -name 'kubelet-client-[0-9]*' ! -type d 2>/dev/null | sort)
[ $# -eq 0 ] || awk '
    FNR == 1 { inside = 0; print "@@ file " FILENAME }
    /^-----BEGIN / { inside = /^-----BEGIN CERTIFICATE-----/ }
    inside
    /^-----END / { inside = 0 }' "$@"

set -- $(find /etc/kubernetes -maxdepth 1 -name '*.conf' 2>/dev/null | sort)
[ $# -eq 0 ] || awk '
    FNR == 1 { print "@@ config " FILENAME }
    /^ *(- )?(client-certificate|certificate-authority)(-data)?: / { sub(/^[ -]*/, ""); print }' "$@"
