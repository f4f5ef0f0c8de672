//! Control groups: nothing leaves them, they end with the worker, and without them work goes on.
//! Limits that the kernel enforces need controllers, so they are tried in the virtual machine.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shiftboss_tests::{
    Stage, children, groups, has_failpoints, is_root, output_of, skip, wait_for, wait_until,
};
use std::path::PathBuf;
use std::process::Command;

/// A host without namespaces, where nothing but the group holds what has left everything else.
const BARE: [(&str, &str); 1] =
    [("SHIFTBOSS_TEST_LACK", "user-ns,mount-ns,pid-ns,ipc-ns,uts-ns,cgroup-ns,net-ns")];

/// A stage with a supervisor that has control groups, and the group that is its own.
fn with_groups(test: &str, extra: &str, environment: &[(&str, &str)]) -> Option<(Stage, PathBuf)> {
    if groups::parent().is_none() {
        skip(test, "no control group can be made below that of this process");
        return None;
    }
    if !environment.is_empty() && !has_failpoints(test) {
        return None;
    }
    let mut stage = Stage::dark(extra);
    stage.start_with(environment);
    let base = groups::named_in(&stage.log()).pop();
    Some((stage, base.expect("the log names the group")))
}

/// A script whose double-forked child has no environment, no terminal, no session of ours and no
/// parent; it sleeps for a time by which it is found. The script itself waits for `go`.
fn escaping(stage: &Stage, seconds: &str) -> String {
    let go = stage.file("go").display().to_string();
    format!(
        "[ $SHIFTBOSS_ATTEMPT -gt 1 ] || (env -i setsid sh -c 'exec </dev/null >/dev/null 2>&1; \
         (exec env -i setsid sleep {seconds} &)' &); while [ ! -e {go} ]; do sleep 0.02; done"
    )
}

/// The process that sleeps for exactly this long.
fn sleeper(seconds: &str) -> Option<i32> {
    let wanted = format!("sleep\0{seconds}\0");
    let entries = std::fs::read_dir("/proc").expect("it is mounted").flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes())
    })
}

/// Kills a worker with all its launchers, none of which can do anything about it.
fn kill_all_guards(worker: i32) {
    let worker_pid = Pid::from_raw(worker);
    kill(worker_pid, Signal::SIGSTOP).expect("it lives");
    for launcher in children(worker) {
        kill(Pid::from_raw(launcher), Signal::SIGKILL).expect("it lives");
    }
    kill(worker_pid, Signal::SIGKILL).expect("it lives");
}

fn wait_for_return(stage: &Stage, job: i64) {
    wait_until("its worker is back", || {
        let workers = stage.json(&["workers", "--json"]);
        let is_back =
            |one: &serde_json::Value| one["state"] == "busy" && one["attempts"][0]["job"] == job;
        workers.as_array().is_some_and(|all| all.iter().any(is_back))
    });
}

#[test]
fn what_has_left_everything_else_is_still_in_the_group_of_an_adopted_worker() {
    let test = "what_has_left_everything_else_is_still_in_the_group_of_an_adopted_worker";
    let Some((mut stage, base)) = with_groups(test, "", &BARE) else { return };
    let job = stage.shell(&escaping(&stage, "86321.5"));
    let escaped = wait_for("it has escaped", || sleeper("86321.5"));
    let worker = stage.attempts(job)[0].pid;
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    stage.start_with(&BARE);
    wait_for_return(&stage, job);
    assert!(groups::processes(&base).contains(&escaped), "nothing leaves its group");
    kill_all_guards(worker);
    wait_until("another attempt runs", || stage.attempts(job).len() == 2);
    assert_eq!(sleeper("86321.5"), None, "the job ran again beside what was left of it");
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    stage.wait_for_state(job, "succeeded");
}

#[test]
fn groups_that_a_crash_left_are_emptied_before_anything_is_given_back() {
    let test = "groups_that_a_crash_left_are_emptied_before_anything_is_given_back";
    let Some((mut stage, base)) = with_groups(test, "", &BARE) else { return };
    let job = stage.shell(&escaping(&stage, "86322.5"));
    wait_until("it has escaped", || sleeper("86322.5").is_some());
    let worker = stage.attempts(job)[0].pid;
    stage.signal(Signal::SIGKILL);
    stage.wait_for_end();
    kill_all_guards(worker);
    // Another one, of a slot that no worker asks for.
    let left = base.join("encode-7");
    std::fs::create_dir(&left).expect("the group is ours");
    let mut stray = Command::new("sleep").arg("600").spawn().expect("sleep runs");
    std::fs::write(left.join("cgroup.procs"), stray.id().to_string()).expect("it can be moved");
    stage.start_with(&BARE);
    wait_until("another attempt runs", || stage.attempts(job).len() == 2);
    assert_eq!(sleeper("86322.5"), None, "the job ran again beside what was left of it");
    assert!(!stray.wait().expect("ours").success(), "it was killed");
    assert!(!left.exists(), "its group is gone");
    std::fs::write(stage.file("go"), "").expect("the folder is ours");
    stage.wait_for_state(job, "succeeded");
}

#[test]
fn groups_exist_as_long_as_what_they_are_for() {
    let test = "groups_exist_as_long_as_what_they_are_for";
    let Some((mut stage, base)) = with_groups(test, "", &[]) else { return };
    let go = stage.file("go").display().to_string();
    let job = stage.shell(&format!("while [ ! -e {go} ]; do sleep 0.02; done"));
    let worker = wait_for("it runs", || stage.attempts(job).first().map(|one| one.pid));
    let slot = base.join("command-0");
    let job_group = slot.join("job-0");
    wait_until("its programs have a group", || !groups::processes(&job_group).is_empty());
    let told = [[worker].as_slice(), &children(worker)].concat();
    assert_eq!(groups::processes(&slot.join("worker")), told, "worker and launcher live to tell");
    assert!(groups::processes(&job_group).iter().all(|pid| !told.contains(pid)));
    let own = std::fs::read_to_string(slot.join("cgroup.procs")).expect("it is there");
    assert_eq!(own, "", "what holds the limits holds no process");
    std::fs::write(&go, "").expect("the folder is ours");
    stage.wait_for_state(job, "succeeded");
    assert!(!job_group.exists(), "it ends with its attempt");
    let attempt = &stage.attempts(job)[0];
    assert_eq!(attempt.confinement.as_deref().map(|text| text.contains("cgroup")), Some(true));
    stage.signal(Signal::SIGTERM);
    stage.wait_for_end();
    assert!(!base.exists(), "nothing is left behind");
}

#[test]
fn cpu_time_of_what_nobody_waited_for_is_counted() {
    let test = "cpu_time_of_what_nobody_waited_for_is_counted";
    let Some((stage, _)) = with_groups(test, "", &[]) else { return };
    // The child is nobody's: its time is in no sum of a parent until it is reaped.
    let script = "(setsid sh -c 'n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done; \
                  touch done; sleep 60' &); while [ ! -e done ]; do sleep 0.02; done";
    let job = stage.shell(script);
    stage.wait_for_state(job, "succeeded");
    let cpu_ms = stage.attempts(job)[0].cpu_ms.expect("it is counted");
    assert!(cpu_ms >= 20, "{cpu_ms} ms");
}

#[test]
fn a_cancelled_tree_is_dead_when_its_launcher_was_killed_too() {
    let test = "a_cancelled_tree_is_dead_when_its_launcher_was_killed_too";
    let Some((stage, _)) = with_groups(test, "[types.command]\nmax_attempts = 1", &BARE) else {
        return;
    };
    let job = stage.shell(&escaping(&stage, "86323.5"));
    wait_until("it has escaped", || sleeper("86323.5").is_some());
    let worker = stage.attempts(job)[0].pid;
    for launcher in children(worker) {
        kill(Pid::from_raw(launcher), Signal::SIGKILL).expect("it lives");
    }
    stage.wait_for_state(job, "failed");
    assert_eq!(sleeper("86323.5"), None, "its worker killed its group");
    assert_eq!(stage.attempts(job)[0].pid, worker);
}

#[test]
fn without_a_tree_that_can_be_written_work_goes_on_and_says_so() {
    let test = "without_a_tree_that_can_be_written_work_goes_on_and_says_so";
    let (Some(parent), true) = (groups::parent(), is_root()) else {
        return skip(test, "needs root and a control group to take away");
    };
    let dir = parent.display();
    let read_only = format!("mount --bind {dir} {dir} && mount -o remount,bind,ro {dir}");
    let script = |prepare: &str| format!("{prepare} && exec \"$@\"");
    let within = |script: &str| {
        let args = ["--mount", "--propagation", "private", "sh", "-c", script, "sh"];
        args.map(str::to_owned).to_vec()
    };
    if !output_of(Command::new("unshare").args(within(&script(&read_only))).arg("true"))
        .status
        .success()
    {
        return skip(test, "no mount namespace in which the tree is read-only");
    }
    let gone = "umount -R -l /sys/fs/cgroup";
    for (prepare, said) in [(&*read_only, "Read-only file system"), (gone, "is not mounted")] {
        let mut stage = Stage::dark("[types.command]\nlimits = { pids = 64 }");
        let args = within(&script(prepare));
        let mut wrapper = vec!["unshare"];
        wrapper.extend(args.iter().map(String::as_str));
        stage.start_within(&wrapper);
        let job = stage.shell("true");
        stage.wait_for_state(job, "succeeded");
        let confinement = stage.attempts(job)[0].confinement.clone().unwrap_or_default();
        let missing = "missing: cgroup (limits.pids: ";
        assert!(confinement.contains(missing) && confinement.contains(said), "{confinement}");
        assert!(stage.log().contains("limits are not enforced by the kernel"), "{}", stage.log());
    }
}

#[test]
fn memory_that_nothing_enforces_is_looked_at_and_what_exceeds_it_is_killed_and_told() {
    let config = "[types.command]\nmax_attempts = 1\nlimits = { memory = \"64MiB\" }";
    let stage = Stage::new(config);
    if !stage.log().contains("not every limit is enforced") && !stage.log().contains("no control") {
        return skip("soft memory limit", "the kernel enforces the limit here");
    }
    // The last process keeps all that it reads until its input ends, long after a look.
    let job = stage.shell("(head -c 150000000 /dev/zero; sleep 100) | tail -c 150000000 | cat");
    let row = stage.wait_for_state(job, "failed");
    assert!(row.last_error.contains("exceeded its memory limit of 64.0 MiB"), "{}", row.last_error);
    assert!(row.last_error.contains("soft"), "{}", row.last_error);
    assert_eq!((row.failures, row.crash_count), (1, 0));
    assert_eq!(stage.attempts(job)[0].cause.as_deref(), Some("out_of_memory"));
    let small = stage.shell("sleep 2.5");
    stage.wait_for_state(small, "succeeded");
}

#[test]
fn a_worker_that_has_grown_is_replaced_after_its_job() {
    let stage = Stage::new("[types.noop]\nrecycle = { above_memory = \"1MiB\" }");
    let mut pids = Vec::new();
    for _ in 0..2 {
        let job = stage.insert("noop", "{}");
        stage.wait_for_state(job, "succeeded");
        pids.push(stage.attempts(job)[0].pid);
        wait_until("its worker has gone", || {
            stage.log().contains("it uses more memory than a worker may keep")
                && std::fs::metadata(format!("/proc/{}", pids[pids.len() - 1])).is_err()
        });
    }
    assert_ne!(pids[0], pids[1]);
}
