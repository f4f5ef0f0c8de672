# Limits on one job, with the service's own unit around it.
cat >>$SHIFTBOSS_CONFIG <<'TOML'
[types.bounded]
workload = "command"
stall_timeout = "none"
limits = { file_size = "10MiB", files = 64 }
TOML
check limit.reload systemctl reload shiftboss
within 20 holds 'shiftboss types | grep -q bounded'

job=$(submit bounded "$(command_of "head -c 20000000 /dev/zero > $MEDIA/huge")")
check limit.file-size within 60 state "$job" failed
check limit.file-size-told has_error "$job" 'file.*limit|limit.*file|XFSZ'
check limit.file-size-bounded holds '[ "$(stat -c %s $MEDIA/huge)" -le 10485760 ]'
rm -f $MEDIA/huge
