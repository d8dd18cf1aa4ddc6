# Parameter: lock.
# The holder is the process that has the file open as its lock, and no other process of that number.
[ -e "$lock" ] || exit 0
exec 9<"$lock" || exit 0
IFS=$'\t' read -r _ _ _ _ _ keeper _ <"$lock"
if ! flock -n 9 && [ "$lock" -ef "/proc/$keeper/fd/9" ]; then kill "$keeper"; fi
flock -w 2 9 || { busy; exit 1; }
rm -f "$lock"
