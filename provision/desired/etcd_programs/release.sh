# The restore is done: others may start things again.
rm -f "$marker"
