# Parameter: lock.
[ -e "$lock" ] || exit 0
exec 9<"$lock" || exit 0
flock -n -s 9 || busy
