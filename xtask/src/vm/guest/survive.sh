# The supervisor dies, is replaced, restarted and hangs, while a worker runs a job. From systemd 254
# on that job must not notice. Before, a death gives it back; only an upgrade in place keeps it.
job=$(sleeper a)
check runs within 30 test -s $MEDIA/a
worker=$(worker_of)
note "job $job, worker $worker in $(cat "/proc/$worker/cgroup")"
check worker.known alive "$worker"
back() { is "$(worker_of)" "$worker"; }
survives() {
    if [ "$SYSTEMD" -lt 254 ]; then
        check "$1.runs-again" within 60 state "$job" running
        worker=$(worker_of)
        return
    fi
    check "$1.worker-lives" alive "$worker"
    check "$1.adopted" within 30 back
    check "$1.same-attempt" is "$(sql "SELECT attempt FROM jobs WHERE id = $job")" 1
}

old=$(main)
kill -9 "$old"
check crash.restarted within 30 ready_again "$old"
survives crash

old=$(main)
check restart systemctl restart shiftboss
check restart.other-process within 20 ready_again "$old"
survives restart

check reload systemctl reload shiftboss
check reload.bad-file holds '! ( echo nonsense = 1 >> $SHIFTBOSS_CONFIG; shiftboss config reload )'
sed -i '/^nonsense/d' $SHIFTBOSS_CONFIG
check reload.still-there status_answers

# The newer package: its programs are other files, so the process that runs must be of those.
same_program() { is "$(stat -Lc %i "/proc/$(main)/exe")" "$(stat -c %i /usr/bin/shiftboss)"; }
attempt=$(sql "SELECT attempt FROM jobs WHERE id = $job")
check upgrade.before same_program
check upgrade dpkg -i "$newer"
check upgrade.new-program within 30 same_program
check upgrade.ready within 20 status_answers
check upgrade.worker-lives alive "$worker"
check upgrade.adopted within 30 back
check upgrade.same-attempt is "$(sql "SELECT attempt FROM jobs WHERE id = $job")" "$attempt"
check upgrade.still-enabled systemctl is-enabled -q shiftboss

# A configuration that the newer version refuses must not leave nobody who works.
cp $SHIFTBOSS_CONFIG /tmp/good.toml
echo 'nonsense = 1' >>$SHIFTBOSS_CONFIG
old=$(main)
check refused.upgrade dpkg -i "$newer"
check refused.goes-on is "$(main)" "$old"
cat /tmp/good.toml >$SHIFTBOSS_CONFIG

old=$(main)
kill -STOP "$old"
check watchdog within 40 ready_again "$old"
check watchdog.told holds 'journalctl -u shiftboss --no-pager | grep -qi "watchdog timeout"'
survives watchdog

touch $MEDIA/a.go
check survived within 30 state "$job" succeeded
if [ "$SYSTEMD" -ge 254 ]; then
    check survived.once is "$(cat $MEDIA/a)" 1
else
    check survived.warned holds 'journalctl -u shiftboss --no-pager | grep -q "OLDER THAN 254"'
fi
