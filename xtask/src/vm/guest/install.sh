# The package on a machine that never had it: installed, but neither enabled nor started.
older=$(ls shiftboss_*.deb | grep -v next) newer=$(ls shiftboss_*next*.deb)
check install dpkg -i "$older"
check install.not-enabled is "$(systemctl is-enabled shiftboss 2>&1)" disabled
check install.not-started is "$(systemctl is-active shiftboss)" inactive
check install.user holds 'getent passwd shiftboss | grep -q :/var/lib/shiftboss:'
check install.no-login holds 'getent passwd shiftboss | grep -q nologin'
check install.folders is "$(stat -c '%U:%G %a' /etc/shiftboss $SHIFTBOSS_CONFIG \
    /var/lib/shiftboss /var/lib/shiftboss/work $MEDIA 2>/dev/null | paste -sd' ')" \
    "root:shiftboss 750 root:shiftboss 640 $(printf 'shiftboss:shiftboss %s\n' 750 700 2770 |
        paste -sd' ')"
check install.manual holds 'gzip -dc /usr/share/man/man1/shiftboss-submit.1.gz | grep -q payload'
completions=/usr/share/bash-completion/completions/shiftboss
check install.completions holds '. $completions && complete -p shiftboss'
check install.config shiftboss config check
check install.unit systemd-analyze verify --man=no shiftboss.service
# 252 gets a drop-in, as it cannot keep the supervisor in a leaf of its own.
if [ "$SYSTEMD" -lt 254 ]; then
    check install.old-systemd is "$(unit KillMode)" mixed
else
    check install.new-systemd is "$(unit KillMode)" process
fi
check install.again dpkg -i "$older"
check install.again-not-enabled is "$(systemctl is-enabled shiftboss 2>&1)" disabled
