# What the unit forbids and what it must leave possible, tried with the unit's own settings around
# other commands.
sed -e 's/^Type=notify/Type=oneshot/' -e '/^\(WatchdogSec\|NotifyAccess\|Restart\|ExecReload\)/d' \
    -e "s#^ExecStart=.*#ExecStart=/bin/sh $MEDIA/probe.sh#" -e '/^RuntimeDirectory/d' \
    -e '/^RestartSec/d' /usr/lib/systemd/system/shiftboss.service \
    >/run/systemd/system/probe.service
cat >$MEDIA/probe.sh <<'PROBE'
base=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
case $base in */supervisor) base=${base%/supervisor} ;; esac
try() { if sh -c "$2" >/dev/null 2>&1; then echo "yes $1"; else echo "no $1"; fi; }
try namespaces 'unshare -Urmnipuf true'
try fresh-proc 'unshare -Urpf --mount-proc test -e /proc/self/stat'
try own-group "mkdir $base/probe && rmdir $base/probe"
try hidden-proc 'ls /run/shiftboss-proc'
try tunables 'echo 1 >/proc/sys/vm/drop_caches || echo 1 >/run/shiftboss-proc/proc/sys/vm/drop_caches'
try kernel-log 'dmesg || head -c 1 /dev/kmsg || head -c 1 /proc/kmsg'
try etc 'touch /etc/probe'
try home 'ls /home /root'
try become-root 'su -c true'
try state 'touch /var/lib/shiftboss/media/probe && rm /var/lib/shiftboss/media/probe'
PROBE
systemctl daemon-reload
systemctl start probe.service
systemctl status --no-pager probe.service
probed() { journalctl -u probe.service -o cat --no-pager | grep -qx "$1"; }
for possible in namespaces fresh-proc own-group state; do
    check "unit.possible.$possible" probed "yes $possible"
done
for forbidden in hidden-proc tunables kernel-log etc home become-root; do
    check "unit.forbidden.$forbidden" probed "no $forbidden"
done
rm -f /run/systemd/system/probe.service $MEDIA/probe.sh
systemctl daemon-reload
