# After a power cut: the files `acked` and `done` say what had been told before it.
check power.service within 30 status_answers
check power.quick-check is "$(sql 'PRAGMA integrity_check')" ok
check power.db-check shiftboss db check

acked_are_there() {
    local id missing=""
    while read -r id; do
        [ "$(sql "SELECT count(*) FROM jobs WHERE id = $id")" = 1 ] || missing+=" $id"
    done <acked
    is "$missing" ""
}
done_is_done() {
    local id attempt wrong=""
    while read -r id attempt; do
        [ "$(sql "SELECT state || attempt FROM jobs WHERE id = $id")" = "succeeded$attempt" ] ||
            wrong+=" $id"
    done <done
    is "$wrong" ""
}
nothing_waits() {
    is "$(sql "SELECT count(*) FROM jobs WHERE tags = 'power' AND state != 'succeeded'")" 0
}
journals() { (cd $MEDIA/journal && grep -H "^$1 " -- * | sed "s/:$1//"); } # lines JOB ATTEMPT
# A claim is synced before its program starts: no attempt is ever started twice.
no_attempt_twice() { is "$(journals start | sort | uniq -d | paste -sd,)" ""; }
no_success_twice() {
    is "$(sql "SELECT job_id FROM attempts WHERE outcome = 'succeeded'
        GROUP BY job_id HAVING count(*) > 1" | paste -sd,)" ""
}
# What succeeded, and so was on disk, is not begun again.
nothing_after_success() {
    is "$(journals start | awk 'NR == FNR { done[$1] = $2; next }
        $1 in done && $2 > done[$1]' done - | paste -sd,)" ""
}
every_success_has_run() {
    local id attempt wrong=""
    while read -r id attempt; do
        grep -qx "end $attempt" "$MEDIA/journal/$id" || wrong+=" $id"
    done < <(sql "SELECT id || ' ' || attempt FROM jobs
        WHERE tags = 'power' AND state = 'succeeded'")
    is "$wrong" ""
}
check power.acknowledged acked_are_there
check power.succeeded-stays done_is_done
check power.goes-on within 120 nothing_waits
check power.no-attempt-twice no_attempt_twice
check power.no-success-twice no_success_twice
check power.nothing-after-success nothing_after_success
check power.every-success-has-run every_success_has_run
again=$(sql "SELECT count(*) FROM jobs WHERE tags = 'power' AND attempt > 1")
note "$(wc -l <acked) acknowledged, $(wc -l <done) told as done, $again jobs ran more than once"
