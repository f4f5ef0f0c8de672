# The end: stop drains, a removal keeps what is people's, a purge leaves nothing but that.
job=$(sleeper last)
check stop.runs within 30 test -s $MEDIA/last
check stop systemctl stop shiftboss
check stop.clean is "$(unit Result)" success
check stop.empty holds '! pgrep -u shiftboss'
check stop.given-back state "$job" available
check stop.database shiftboss db check
touch $MEDIA/last.go
check start-again systemctl start shiftboss
check start-again.goes-on within 30 state "$job" succeeded

sleeper removed >/dev/null
check remove.runs within 30 test -s $MEDIA/removed
check remove dpkg -r shiftboss
check remove.stopped holds '! pgrep -u shiftboss'
check remove.keeps holds 'test -s $DB && test -s $SHIFTBOSS_CONFIG && test -d $MEDIA'
check remove.gone holds '! systemctl cat shiftboss && ! test -e /usr/bin/shiftboss'

# Whoever had it enabled finds it so, and nothing has started by itself.
check reinstall dpkg -i "$(ls shiftboss_*next*.deb)"
check reinstall.enabled systemctl is-enabled -q shiftboss
check reinstall.not-started is "$(systemctl is-active shiftboss)" inactive

check purge dpkg -P shiftboss
check purge.films-stay holds 'test -d $MEDIA && is "$(ls -A /var/lib/shiftboss)" media'
rm -r /var/lib/shiftboss /etc/systemd/system/shiftboss.service.d/dog.conf
rmdir --ignore-fail-on-non-empty /etc/systemd/system/shiftboss.service.d 2>/dev/null
# The payload and scratch of these checks aside: /run and /tmp are other file systems.
left() { find / /run -xdev -iname '*shiftboss*' -not -path '/run/vm/*' -not -path '/run/systemd/*'; }
check purge.nothing-left is "$(left | paste -sd' ')" ""
check purge.not-failed holds '! systemctl --failed --no-legend | grep -q shiftboss'

# The same again on a clean machine, and purge without having started anything.
check purge.install-again dpkg -i "$(ls shiftboss_*next*.deb)"
check purge.not-enabled is "$(systemctl is-enabled shiftboss 2>&1)" disabled
check purge.again dpkg -P shiftboss
check purge.again-nothing-left is "$(left | paste -sd' ')" ""
