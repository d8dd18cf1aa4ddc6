# The restore is done everywhere: what was kept aside goes.
rm -rf "$data/before-restore" "$data/restoring" "$data"/restored-*
