# Parameters: lock, life, computer, holder. Bash: for `read -t`, which ends with the holder's silence.
# The file is removed at the end, so its name may mean another file than the one that was opened.
# `inspect` holds the lock for a moment: hence a second of patience.
while :; do
    exec 9<>"$lock" || exit 1
    flock -w 1 9 && free=yes || free=
    [ "$lock" -ef /dev/fd/9 ] || continue
    [ "$free" ] && break
    busy
    exit 0
done
printf '%s\t%s\t%s\t%s\n' "$holder" "$(date +%s)" "$$" "$computer" >"$lock"
echo held
while read -r -t "$life" _; do touch "$lock"; done
rm -f "$lock"
