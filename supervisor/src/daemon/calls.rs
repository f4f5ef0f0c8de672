//! What clients ask on the control socket.

mod door;

use super::Daemon;
use super::inputs::Input;
use crate::config::{Config, reload_differences};
use crate::link::control::{Call, Peer};
use crate::os::host::Usage;
use crate::policy::event::{DrainLimit, Event};
use crate::policy::why::{RowFacts, why_waiting};
use crate::store::op::{Op, Reply};
use crate::store::reader::Reader;
use serde_json::{Value, json};
use shiftboss_protocol::control::{JobFilter, Request, Response};
use shiftboss_protocol::job::{JobId, JobState};
use shiftboss_provider::operation::Resolution;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

type Answer = mpsc::Sender<Response>;

/// Jobs that one client may watch.
const WATCHED_MAX: usize = 1000;

impl Daemon {
    pub(super) fn on_call(&mut self, call: Call) {
        let Call { request, peer, reply } = call;
        tracing::debug!(?request, uid = peer.uid, pid = peer.pid, "a client asks");
        if let Some(why) = self.why_not(&peer) {
            tracing::warn!(uid = peer.uid, pid = peer.pid, ?request, "a client was refused: {why}");
            return refuse(&reply, format!("this process may ask nothing: {why}"));
        }
        match request {
            Request::Submit(jobs) => {
                self.store.send(Op::Enqueue(jobs, store_reply(reply, Response::Submitted)));
            }
            Request::Jobs(filter) => self.list_jobs(filter, reply),
            Request::Job(id) => self.read_job(id, reply),
            Request::Watch(ids) if ids.is_empty() || ids.len() > WATCHED_MAX => {
                refuse(
                    &reply,
                    format!("{} jobs cannot be watched: 1 to {WATCHED_MAX} can", ids.len()),
                );
            }
            Request::Watch(ids) => self.live.watch(ids, reply),
            Request::Cancel(ids) => {
                // Waiting jobs end with this, without any other event.
                self.retention.look_at_kept();
                self.store.send(Op::Cancel(ids, store_reply(reply, Response::Actions)));
            }
            Request::Retry(ids) => {
                self.store.send(Op::Retry(ids, store_reply(reply, Response::Actions)));
            }
            Request::Resolve { job, operation } => {
                let how = operation.map_or(Resolution::Resubmit, Resolution::Adopt);
                self.store.send(Op::Resolve(job, how, store_reply(reply, Response::Actions)));
            }
            Request::Status => say(&reply, Response::Json(self.status().to_string())),
            Request::Workers => self.ask_usage(reply),
            Request::Types => self.ask_waiting(reply),
            Request::Pause(name) => self.pause(name, true, reply),
            Request::Resume(name) => self.pause(name, false, reply),
            Request::Drain => {
                tracing::info!(uid = peer.uid, pid = peer.pid, "a client asked to drain");
                self.handle(Event::Drain(DrainLimit::Unlimited));
                say(&reply, Response::Done);
            }
            Request::Upgrade => {
                let answer = self.upgrade(&format!("a client (pid {})", peer.pid));
                say(&reply, answer);
            }
            Request::Reload => {
                let answer = self.reload(&format!("a client (pid {})", peer.pid));
                say(&reply, answer);
            }
        }
    }

    /// Why this client may ask nothing, if it may not.
    fn why_not(&self, peer: &Peer) -> Option<&'static str> {
        let worker_groups: Vec<_> = self.fleet.groups().collect();
        let house = door::House {
            pid: std::process::id(),
            group: self.fleet.own_group(),
            is_worker: &|pid| self.fleet.is_worker(pid),
            worker_groups: &worker_groups,
        };
        door::why_not(peer.standing.as_deref(), &house)
    }

    fn list_jobs(&self, filter: JobFilter, reply: Answer) {
        self.queries.ask(move |desk| {
            let read =
                |reader: &Reader| reader.jobs(&filter).map_err(|error| super::fleet::chain(&error));
            let answer = match desk.reader().and_then(read) {
                Ok(jobs) => Response::Json(Value::Array(jobs).to_string()),
                Err(reason) => Response::Refused(reason),
            };
            say(&reply, answer);
        });
    }

    fn read_job(&self, id: JobId, reply: Answer) {
        let inputs = self.inputs.clone();
        self.queries.ask(move |desk| {
            let read = |reader: &Reader| -> Result<Option<Value>, crate::store::Error> {
                let Some(mut row) = reader.job(id)? else { return Ok(None) };
                row["attempts"] = Value::Array(reader.attempts(id)?);
                Ok(Some(row))
            };
            let found = desk
                .reader()
                .and_then(|reader| read(reader).map_err(|error| super::fleet::chain(&error)));
            match found {
                Ok(Some(row)) => {
                    let _ = inputs.send(Input::Row(row, reply));
                }
                Ok(None) => refuse(&reply, format!("there is no job {id}")),
                Err(reason) => refuse(&reply, reason),
            }
        });
    }

    /// Adds what only the daemon knows: latest progress, and why the job does not run.
    pub(super) fn answer_row(&mut self, mut row: Value, reply: &Answer) {
        self.add_live(&mut row);
        self.add_why(&mut row);
        say(reply, Response::Json(row.to_string()));
    }

    fn add_why(&self, row: &mut Value) {
        let facts = facts_of(row);
        row["why_waiting"] =
            facts.and_then(|facts| why_waiting(&self.crew, self.clock.now(), &facts)).into();
    }

    fn add_live(&self, row: &mut Value) {
        let Some(id) = row["id"].as_i64().map(JobId) else { return };
        let now = self.clock.now();
        if row["state"] != JobState::Running.as_str() {
            row["live"] = Value::Null;
            return;
        }
        let run = self.crew.run_view(now, id);
        if let Some(progress) = self.live.of(id)
            && row["attempt"].as_u64() == Some(u64::from(progress.attempt.0))
        {
            row["progress"] = progress.fraction.into();
            row["progress_note"] = progress.note.clone().into();
        }
        row["live"] = run.map_or(Value::Null, |run| {
            json!({
                "worker": run.worker.0,
                "running_ms": u64::try_from(run.running_for.as_millis()).unwrap_or(u64::MAX),
                "stopping": run.stopping,
            })
        });
    }

    /// Has the rows read that watchers wait for.
    pub(super) fn serve_watchers(&mut self) {
        for (watcher, jobs) in self.live.take_dirty() {
            let inputs = self.inputs.clone();
            self.queries.ask(move |desk| {
                let Ok(reader) = desk.reader() else { return };
                let read = |job: JobId| reader.job(job).ok().map(|row| (job, row));
                let rows: BTreeMap<_, _> = jobs.into_iter().filter_map(read).collect();
                let _ = inputs.send(Input::Rows(watcher, rows));
            });
        }
    }

    pub(super) fn answer_watcher(&mut self, watcher: u64, rows: BTreeMap<JobId, Option<Value>>) {
        for (job, row) in rows {
            let state = row.as_ref().and_then(|row| JobState::parse(row["state"].as_str()?));
            let is_final = state.is_none_or(JobState::is_final);
            let row = row.map(|mut row| {
                self.add_live(&mut row);
                self.add_why(&mut row);
                if let Some(live) = row.get_mut("live").and_then(Value::as_object_mut) {
                    // Changes by itself: it would make every look a change.
                    live.remove("running_ms");
                }
                row
            });
            self.live.tell(watcher, job, row, is_final);
        }
        self.live.end_if_final(watcher);
    }

    fn status(&self) -> Value {
        let status = self.crew.status_view();
        let now = self.clock.now();
        let broken: Vec<_> = self
            .crew
            .types_view(now)
            .into_iter()
            .filter(|one| one.breaker != "closed")
            .map(|one| json!({ "type": one.name, "breaker": one.breaker }))
            .collect();
        json!({
            "state": status.state,
            "instance": self.instance,
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "sqlite": crate::store::sqlite_version(),
            "started_at": self.started_ms,
            "uptime_ms": now.unix_ms.saturating_sub(self.started_ms),
            "database": self.config.database,
            "work_dir": self.config.work_dir,
            "workers": status.workers,
            "running": status.running,
            "running_max": status.running_max,
            "poll_interval_ms": u64::try_from(status.poll_interval.as_millis()).unwrap_or(u64::MAX),
            "notices_foreign_commits": self.watched,
            "breakers": broken,
            "poll_lag_ms": self.fleet.poll_lag_ms(None),
            "trouble": self.trouble.as_ref().map(|trouble| &trouble.text),
        })
    }

    fn ask_usage(&self, reply: Answer) {
        let pids: Vec<u32> = self.crew.workers_view().iter().filter_map(|one| one.pid).collect();
        let inputs = self.inputs.clone();
        self.queries.ask(move |desk| {
            let usage = desk.host().map(|host| host.usage(&pids)).unwrap_or_default();
            let _ = inputs.send(Input::Usage(usage, reply));
        });
    }

    pub(super) fn answer_workers(&self, usage: &BTreeMap<u32, Usage>, reply: &Answer) {
        let row = |one: crate::policy::crew::WorkerView| {
            let used = one.pid.and_then(|pid| usage.get(&pid));
            let attempts: Vec<_> = one
                .attempts
                .iter()
                .map(|(job, attempt)| json!({ "job": job.0, "attempt": attempt.0 }))
                .collect();
            json!({
                "id": one.id.0,
                "type": one.job_type,
                "slot": one.slot,
                "pid": one.pid,
                "state": one.state,
                "attempts": attempts,
                "started_at": one.started_at_ms,
                "cpu": used.map(|used| (f64::from(used.cpu_percent) * 10.0).round() / 10.0),
                "memory": used.map(|used| used.memory_bytes),
                "gauges": self.fleet.gauges(one.id),
            })
        };
        let rows: Vec<_> = self.crew.workers_view().into_iter().map(row).collect();
        say(reply, Response::Json(Value::Array(rows).to_string()));
    }

    fn ask_waiting(&self, reply: Answer) {
        let inputs = self.inputs.clone();
        self.queries.ask(move |desk| {
            let counts =
                desk.reader().and_then(|reader| reader.counts().map_err(|e| e.to_string()));
            let mut waiting = BTreeMap::new();
            for count in counts.unwrap_or_default() {
                if matches!(count.state, JobState::Available | JobState::Scheduled) {
                    *waiting.entry(count.job_type).or_insert(0) += count.count;
                }
            }
            let _ = inputs.send(Input::Types(waiting, reply));
        });
    }

    pub(super) fn answer_types(&self, waiting: &BTreeMap<String, i64>, reply: &Answer) {
        let row = |one: crate::policy::crew::TypeView| {
            let configured = self.config.types.get(&one.name);
            let mut limits = configured.map_or(Value::Null, |it| json!(it.limits));
            if !limits.is_object() {
                limits = json!({});
            }
            limits["workers"] = one.workers_max.into();
            limits["running"] = one.running_max.into();
            json!({
                "type": one.name,
                "state": one.state,
                "workers": one.workers,
                "waiting": waiting.get(&one.name).copied().unwrap_or(0),
                "running": one.running,
                "limits": limits,
                "breaker": one.breaker,
                "poll_lag_ms": self.fleet.poll_lag_ms(Some(&one.name)),
            })
        };
        let rows: Vec<_> = self.crew.types_view(self.clock.now()).into_iter().map(row).collect();
        say(reply, Response::Json(Value::Array(rows).to_string()));
    }

    fn pause(&self, name: String, paused: bool, reply: Answer) {
        if !self.config.types.contains_key(&name) {
            let known: Vec<_> = self.config.types.keys().map(String::as_str).collect();
            refuse(&reply, format!("no type {name} is configured: types are {}", known.join(", ")));
            return;
        }
        let inputs = self.inputs.clone();
        let told = name.clone();
        let done: Reply<()> = Box::new(move |result| match result {
            Ok(()) => {
                let _ = inputs.send(Input::Paused(told, paused));
                say(&reply, Response::Done);
            }
            Err(error) => refuse(&reply, super::fleet::chain(&error)),
        });
        self.store.send(Op::Pause { job_type: name, paused, reply: done });
    }

    /// Reads the configuration again and takes over what can be taken over while running.
    pub(super) fn reload(&mut self, by: &str) -> Response {
        self.manager.reloading();
        let answer = self.read_again(by);
        self.manager.ready();
        answer
    }

    fn read_again(&mut self, by: &str) -> Response {
        let loaded = Config::load(&self.options).and_then(|loaded| {
            loaded.0.check_host(&self.ladder)?;
            Ok(loaded)
        });
        match loaded {
            Ok((config, warnings)) => {
                for warning in &warnings {
                    tracing::warn!("{}", warning.text);
                }
                let differences = reload_differences(&self.config, &config);
                let (applied, restart) = (&differences.applied, &differences.needs_restart);
                tracing::info!(by, "configuration read again: {}", differences.sentence());
                let answer = json!({
                    "applied": applied,
                    "needs_restart": restart,
                    "message": differences.sentence(),
                });
                self.config.take_over(config);
                if !differences.applied.is_empty() {
                    super::start::announce_settings(&self.config, &self.ladder);
                }
                self.retention.look_now();
                self.handle(Event::Reload(Box::new(self.config.policy_settings())));
                Response::Json(answer.to_string())
            }
            Err(error) => {
                tracing::error!(by, "configuration refused, the old one stays in force: {error}");
                Response::Refused(format!("the old configuration stays in force: {error}"))
            }
        }
    }
}

fn facts_of(row: &Value) -> Option<RowFacts> {
    Some(RowFacts {
        job: JobId(row["id"].as_i64()?),
        job_type: row["type"].as_str()?.to_owned(),
        state: JobState::parse(row["state"].as_str()?)?,
        run_at_ms: row["run_at"].as_i64().unwrap_or(0),
        failures: u32::try_from(row["failures"].as_i64().unwrap_or(0)).unwrap_or(0),
        owner: row["owner"].as_str().map(str::to_owned),
    })
}

fn say(reply: &Answer, response: Response) {
    // A client that went away, or asks without reading, gets nothing more.
    let _ = reply.try_send(response);
}

fn refuse(reply: &Answer, reason: String) {
    say(reply, Response::Refused(reason));
}

/// Passes the store's answer on, from its thread.
fn store_reply<T: 'static>(
    reply: Answer,
    answer: impl FnOnce(T) -> Response + Send + 'static,
) -> Reply<T> {
    Box::new(move |result| match result {
        Ok(value) => say(&reply, answer(value)),
        Err(error) => refuse(&reply, super::fleet::chain(&error)),
    })
}
