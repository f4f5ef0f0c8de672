# What the steps share: results, waiting, and words for the service.
failed=0
# Touched by each word; so long without one, seconds, and the guest tells why and ends.
SAID=/run/vm/said
STILL_MAX=${STILL_MAX:-400}
DB=/var/lib/shiftboss/shiftboss.db
MEDIA=/var/lib/shiftboss/media
export SHIFTBOSS_CONFIG=/etc/shiftboss/shiftboss.toml
SYSTEMD=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')

say() {
    echo "$*"
    echo "$*" >/dev/ttyS1
    : >"$SAID"
}
# A step that stands still: what every process waits for goes to the log and to the console, and the
# guest ends, with its journal.
tell_when_still() {
    local thread
    until [ $(($(date +%s) - $(stat -c %Y "$SAID"))) -ge "$STILL_MAX" ]; do sleep 5; done
    {
        ps -eo pid,ppid,user,stat,wchan:24,args
        for thread in /proc/[0-9]*/task/*; do
            [ -s "$thread/cmdline" ] || continue # the kernel's own
            echo "== ${thread#/proc/} $(<"$thread/comm"), system call $(cat "$thread/syscall")"
            cat "$thread/stack"
        done
    } 2>/dev/null | tee /dev/ttyS0
    say "FAIL still: no word for $STILL_MAX s; what each process waits for is in run.log"
    kill -KILL $$
}
note() { say "note $*"; }
skip() { say "SKIP $1: ${*:2}"; }

# NAME COMMAND...: one check. What the command prints goes to the log; its last line is the why.
check() {
    local name=$1 text
    shift
    if text=$("$@" 2>&1); then
        [ -z "$text" ] || echo "$text"
        say "ok $name"
    else
        echo "$text"
        say "FAIL $name: $* : $(tail -n 1 <<<"$text")"
        failed=1
    fi
}

# SECONDS COMMAND...: waits until it succeeds; three times as long, as a busy host stretches a guest.
within() {
    local end=$((SECONDS + 3 * $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ]; then
            "$@" # shown
            return 1
        fi
        sleep 0.2
    done
}

is() { # an answer, and what it should be
    [ "$1" = "$2" ] || { echo "is '$1', wanted '$2'" && return 1; }
}
holds() { eval "$1"; } # a condition of the shell
unit() { systemctl show -P "$1" shiftboss; }
main() { unit MainPID; }
alive() { [ -n "$1" ] && kill -0 "$1"; }
# `sqlite3` as a neighbour on the database would use it.
sql() { sqlite3 -cmd '.timeout 20000' "$DB" "$1"; }
state() { is "$(sql "SELECT state FROM jobs WHERE id = $1")" "$2"; }
error() { sql "SELECT last_error FROM jobs WHERE id = $1"; }
has_error() { grep -qiE "$2" <<<"$(error "$1")" || { error "$1" && return 1; }; }

# TYPE PAYLOAD [OPTION...]: submits a job by the command line and prints its id.
submit() { shiftboss submit "$1" --payload "${@:2}" --json | sed 's/[^0-9]//g'; }
# SCRIPT: a command that runs it in sh and may write into the media folder. No double quotes in it.
command_of() { printf '{"argv":["sh","-c","%s"],"write":["%s"]}' "$1" "$MEDIA"; }
# NAME: a job that writes its attempt into a file, and ends when NAME.go exists.
sleeper() {
    local file=$MEDIA/$1
    submit command "$(command_of "echo \$SHIFTBOSS_ATTEMPT >> $file
        while [ ! -e $file.go ]; do sleep 0.3; done" | paste -sd';')"
}
# The process of a worker that is busy, as the supervisor tells it.
worker_of() {
    shiftboss workers --json >/tmp/workers.json
    sqlite3 :memory: "SELECT value ->> 'pid' FROM json_each(CAST(readfile('/tmp/workers.json')
        AS TEXT)) WHERE value ->> 'state' = 'busy' LIMIT 1"
}
ready_again() { [ "$(main)" != "$1" ] && systemctl is-active -q shiftboss && status_answers; }
status_answers() { shiftboss status >/dev/null; }
