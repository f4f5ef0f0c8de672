# The cage around a program, as the service puts it on, and the attempts to get out of it.
job=$(submit command "$(command_of "cat /etc/shadow; ls /var/lib/shiftboss; ps ax; exit 0")")
check cage.runs within 60 state "$job" succeeded
held=$(sql "SELECT confinement FROM attempts WHERE job_id = $job")
note "in force: $held"
# A version with a cage names what is missing where nothing holds.
if [ -z "${held/none/}" ]; then
    skip cage "this version has none"
    return
fi
for word in user-ns mount-ns pid-ns ipc-ns uts-ns net-ns landlock seccomp no-new-privs; do
    check "cage.$word" holds 'grep -q "\b$word\b" <<<"${held%%;*}"'
done
log=$(shiftboss logs "$job")
check cage.no-secret holds '! grep -q "root:" <<<"$log"'
check cage.no-database holds '! grep -q shiftboss.db <<<"$log"'

if ! shiftboss selftest --help >/dev/null 2>&1; then
    skip cage.escape "this version has no selftest"
    return
fi
check cage.escape holds 'runuser -u shiftboss -- shiftboss selftest --live >$OUT/selftest.txt'
note "$(tail -n 1 "$OUT/selftest.txt")"
