# Two producers, SQL and the command line, until the power goes. An acknowledged job is told at
# once; so is one that is seen succeeded, which it must stay. Each job writes a synced journal.
mkdir -p $MEDIA/journal && chown shiftboss: $MEDIA/journal
work="j=$MEDIA/journal/"'$SHIFTBOSS_JOB; w() { echo $1 $SHIFTBOSS_ATTEMPT >> $j; sync $j; }; '
work+='w start; sleep 0.2; w end'
payload=$(command_of "$work")

by_sql() {
    local id count=0
    while [ $((count += 1)) -le 60 ]; do
        # Printed once sqlite3 has ended, so after the commit.
        id=$(sql "INSERT INTO jobs(type, payload, tags) VALUES ('command', '$payload', 'power')
            RETURNING id") && echo "ack $id" >/dev/ttyS1
        sleep 0.1
    done
}
by_command() {
    local id count=0
    while [ $((count += 1)) -le 60 ]; do
        id=$(submit command "$payload" --tag power) && echo "ack $id" >/dev/ttyS1
    done
}
# What is visible to a reader has been synced.
tell_done() {
    local last=0 line
    while sleep 0.3; do
        for line in $(sql "SELECT id || ':' || attempt FROM jobs
            WHERE state = 'succeeded' AND tags = 'power' AND finished_at > $last"); do
            echo "done ${line/:/ }" >/dev/ttyS1
        done
        last=$(sql "SELECT coalesce(max(finished_at), 1) - 1 FROM jobs WHERE tags = 'power'")
    done
}
note producing
by_sql & by_command & tell_done &
sleep 120
say "FAIL power.cut: the power did not go"
