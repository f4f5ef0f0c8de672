#!/bin/bash
# In the guest: unpacks /dev/vdb, runs its run.sh, leaves everything below $OUT on /dev/vdc.
export OUT=/run/vm/out HOME=/root
mkdir -p /run/vm/in $OUT
tar -xf /dev/vdb -C /run/vm/in && cd /run/vm/in || exit
./run.sh >"$OUT/run.log" 2>&1
code=$?
journalctl -b --no-pager -o short-monotonic >"$OUT/journal.log"
tar -C "$OUT" -cf /dev/vdc . && sync
echo "end $code" >/dev/ttyS1
systemctl poweroff --no-block
