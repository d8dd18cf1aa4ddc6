# Parameters: state, requests.
set -eu
umask 077
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
install -d -m 0755 "$state"
exec 9>"$state/lock"
flock -w 100 9 || { echo 'another run is still busy on this machine' >&2; exit 1; }
install -d -m 0700 "$requests"
cd "$requests"

