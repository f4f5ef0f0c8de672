# Limits on one job, with the service's own unit around it, and how they are told.
cat >>$SHIFTBOSS_CONFIG <<'TOML'
[types.bounded]
workload = "command"
stall_timeout = "none"
max_attempts = 1
poison_after = 1
workers = { max = 1 }
limits = { file_size = "10MiB", files = 64 }
[types.bounded_more]
workload = "command"
stall_timeout = "none"
max_attempts = 1
poison_after = 1
workers = { max = 1 }
limits = { memory = "64MiB", pids = 40, cpu = 0.5 }
[types.bombed]
workload = "command"
stall_timeout = "none"
max_attempts = 1
workers = { max = 3 }
limits = { memory = "256MiB", pids = 128 }
roots = { read = ["/var/lib/shiftboss/media"], write = ["/var/lib/shiftboss/media"] }
[types.slow_disk]
workload = "command"
stall_timeout = "none"
max_attempts = 1
workers = { max = 1 }
limits = { io_write = "1MiB", cpu_weight = 50 }
TOML
check limit.reload systemctl reload shiftboss
within 20 holds 'shiftboss types | grep -q bounded_more'
attempt_of() { sql "SELECT $2 FROM attempts WHERE job_id = $1 ORDER BY attempt DESC LIMIT 1"; }

job=$(submit bounded "$(command_of "head -c 20000000 /dev/zero > $MEDIA/huge")")
check limit.file-size within 60 state "$job" failed
check limit.file-size-told has_error "$job" 'file.*limit|limit.*file|XFSZ'
check limit.file-size-bounded holds '[ "$(stat -c %s $MEDIA/huge)" -le 10485760 ]'
rm -f $MEDIA/huge

if ! sql 'SELECT throttled_ms FROM attempts LIMIT 1' >/dev/null 2>&1; then
    skip limit.memory "this version enforces no limits of memory, processes and CPU"
    return
fi
if [ "$SYSTEMD" -lt 254 ]; then
    skip limit.memory "systemd $SYSTEMD cannot delegate controllers without risk to the next start"
    return
fi
job=$(submit bounded_more "$(command_of "perl -e 'my @a; push @a, q(x) x 1e6 while 1'")")
check limit.memory within 90 state "$job" failed
check limit.memory-cause is "$(attempt_of "$job" cause)" out_of_memory
check limit.memory-told has_error "$job" 'memory limit of 64'
peak=$(attempt_of "$job" memory_peak)
note "limit of 67108864 bytes, peak $peak"
check limit.memory-exact holds '[ "$peak" -ge 63753420 ] && [ "$peak" -le 70464307 ]'

# 200 processes that want to sleep for a minute; the first refusal ends the attempt to make more.
fork='for (1..200) { my $p = fork; die qq(no more after $_\n) unless defined $p; sleep 60 unless $p }'
job=$(submit bounded_more "$(command_of "perl -e '$fork'")")
check limit.processes within 90 state "$job" failed
check limit.processes-cause is "$(attempt_of "$job" cause)" limit
check limit.processes-told has_error "$job" 'process|pids'
check limit.processes-gone holds '! pgrep -u shiftboss perl'

# 8 MiB past the page cache at 1 MiB a second, and the share of CPU time while it writes.
write="dd if=/dev/zero of=$MEDIA/slow bs=64k count=128 oflag=direct"
begun=$(date +%s%N)
job=$(submit slow_disk "$(command_of "$write")")
weight=/sys/fs/cgroup/system.slice/shiftboss.service/slow_disk-0/cpu.weight
check limit.cpu-weight within 20 holds '[ "$(cat $weight)" = 50 ]'
check limit.io within 90 state "$job" succeeded
took_ms=$((($(date +%s%N) - begun) / 1000000))
note "8 MiB at a limit of 1 MiB a second took $took_ms ms"
check limit.io-bounded holds '[ "$took_ms" -ge 7000 ]'
check limit.io-written holds '[ "$(stat -c %s $MEDIA/slow)" = 8388608 ]'
rm -f $MEDIA/slow

# The bombs of the escape suite, which nothing but the kernel can bound.
check limit.bombs holds 'runuser -u shiftboss -- shiftboss selftest --live --type bombed >$OUT/bombs.txt'
note "$(tail -n 1 "$OUT/bombs.txt")"
for bomb in fork memory tmpfs cache; do
    check "limit.$bomb-bomb" holds 'grep -E "^bombed +$bomb-bomb .*denied" $OUT/bombs.txt'
done

# Measured by the program itself, so without its start: CPU used in 10 s of its life, from one
# change of the second to another.
spin='my $t = time; 1 while time == $t; $t = time; my @before = times; 1 while time < $t + 10;'
spin+=' my @after = times; print int(($after[0] + $after[1] - $before[0] - $before[1]) * 100)'
job=$(submit bounded_more "$(command_of "perl -e '$spin'")")
check limit.cpu within 90 state "$job" succeeded
used=$(shiftboss logs "$job" | grep -oE '[0-9]+$' | tail -n 1)
note "limit of 500 ms of CPU per second, used $used; throttled $(attempt_of "$job" throttled_ms) ms"
# A host that is short of CPUs itself gives a guest too little: measured where nobody else works.
if [ "$(cat figures)" = yes ]; then
    check limit.cpu-exact holds '[ "$used" -ge 475 ] && [ "$used" -le 525 ]'
else
    check limit.cpu-bounded holds '[ "$used" -le 525 ]'
fi
