# Why a restore of the database would not fit here; nothing if it would.
[ -d "$data" ] || data=${data%/*}
(room "$data" $((size * 5 / 2))) 2>&1 || true
