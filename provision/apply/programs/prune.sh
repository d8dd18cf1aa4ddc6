lines=$(cat)
remove
judge
for component in $(field component 2); do
    ours=$record/$component
    [ -e "$ours" ] || continue
    printf '%s\n' "$lines" | awk -F '\t' -v name="$component" '
        FILENAME == "-" && $1 == "component" { on = ($2 == name); next }
        FILENAME == "-" { if (on) { sub(/^forget\t/, ""); gone[$0] } next }
        !($0 in gone)' - "$ours" >"$ours$new" || exit 1
    if [ -s "$ours$new" ]; then
        sync "$ours$new"
        mv -fT "$ours$new" "$ours"
    else
        rm -f -- "$ours" "$ours$new"
    fi
done
