#!/bin/bash
# Runs the steps named in the file `steps`, each a script of checks. Results go to the second
# serial line, one each: "ok NAME", "FAIL NAME: why", "SKIP NAME: why"; also "ack ID" (a job that
# was acknowledged), "done ID ATTEMPT" (a job that was seen succeeded), "note ...".
cd "$(dirname "$0")" || exit
# shellcheck source=checks.sh
. ./checks.sh
mapfile -t steps <steps
: >"$SAID"
tell_when_still &
for step in "${steps[@]}"; do
    note "step $step after $(cut -d. -f1 /proc/uptime) s"
    [ -r "./$step.sh" ] || check "$step" test -r "./$step.sh"
    # shellcheck disable=SC1090
    . "./$step.sh"
done </dev/null
kill %1
exit $failed
