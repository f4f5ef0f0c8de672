//! The threads that run attempts: as many as the workload wants, started when they are needed, or
//! one that looks after all of them.

use crate::attempt::AttemptContext;
use crate::held::{Held, Returned, Task};
use crate::serve::life::Event;
use crate::serve::start_thread;
use crate::workload::Workload;
use crate::workload::crowd::{Arrival, Arrivals, Guest};
use shiftboss_protocol::job::{Cause, Failure};
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

pub(crate) struct Runner {
    workload: &'static dyn Workload,
    held: Arc<Held>,
    threads_max: usize,
    queue: Mutex<Queue>,
    available: Condvar,
    /// For a workload that looks after many at once.
    arrivals: Option<Arrivals>,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    threads: usize,
    idle: usize,
}

impl Runner {
    /// Starts what runs attempts as far as it does not wait for the first one.
    pub(crate) fn start(
        workload: &'static dyn Workload,
        held: Arc<Held>,
        concurrency: u32,
    ) -> Result<Arc<Self>, String> {
        let wanted = workload.threads(concurrency).clamp(1, concurrency.max(1));
        let threads_max = usize::try_from(wanted).expect("a thread count fits usize");
        let (queue, available) = (Mutex::default(), Condvar::new());
        let mut arrivals = None;
        if let Some(crowd) = workload.crowd() {
            let desk = Arrivals::telling(Arc::clone(&held.outbox));
            arrivals = Some(desk.clone());
            let events = held.events.clone();
            start_thread(&held, "crowd", move || {
                crowd.keep(&desk);
                // It promised not to return, and its attempts have nobody now.
                let _ = events.send(Event::Broken);
            })?;
        }
        Ok(Arc::new(Self { workload, held, threads_max, queue, available, arrivals }))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while it holds the queue")
    }

    /// Queues tasks, and sees to it that threads take them.
    pub(crate) fn push(self: &Arc<Self>, tasks: Vec<Task>) {
        if let Some(arrivals) = &self.arrivals {
            let desk = arrivals.desk();
            for task in tasks {
                let state = Arc::clone(&task.state);
                let Some(guest) = Guest::admit(task, &self.held, desk) else { continue };
                let key = guest.key();
                desk.bring(Arrival::Assigned(guest));
                // One that came before this was said of an attempt that nobody knew.
                if state.stop_reason().is_some() {
                    desk.bring(Arrival::Stopped(key));
                }
            }
            return;
        }
        let mut queue = self.lock();
        queue.tasks.extend(tasks);
        let wanted = queue.tasks.len().saturating_sub(queue.idle);
        let new = wanted.min(self.threads_max - queue.threads);
        let woken = queue.tasks.len().min(queue.idle);
        queue.threads += new;
        drop(queue);
        for _ in 0..woken {
            self.available.notify_one();
        }
        for _ in 0..new {
            self.start_thread();
        }
    }

    /// The host may refuse threads: those that there are do the work then, one after another.
    fn start_thread(self: &Arc<Self>) {
        let runner = Arc::clone(self);
        let name = format!("{}-run", self.workload.name());
        let started = thread::Builder::new().name(name).spawn(move || {
            // Workloads are caught below; this is for a fault in the runner itself.
            if catch_unwind(AssertUnwindSafe(|| runner.run())).is_err() {
                let _ = runner.held.events.send(Event::Broken);
            }
        });
        if started.is_err() {
            let mut queue = self.lock();
            queue.threads -= 1;
            assert!(queue.threads > 0, "the host refuses the first thread that runs attempts");
        }
    }

    fn run(&self) {
        loop {
            let mut queue = self.lock();
            let task = loop {
                if let Some(task) = queue.tasks.pop_front() {
                    break task;
                }
                queue.idle += 1;
                queue = self.available.wait(queue).expect("nothing panics with the queue");
                queue.idle -= 1;
            };
            drop(queue);
            self.run_task(&task);
        }
    }

    fn run_task(&self, task: &Task) {
        if !task.state.begin() {
            return;
        }
        let context = AttemptContext { state: Arc::clone(&task.state) };
        let run = AssertUnwindSafe(|| self.workload.run(&task.job, &context));
        let returned = match catch_unwind(run) {
            Ok(Ok(result)) => Returned::Success(result.to_string()),
            Ok(Err(failure)) => Returned::Failure(failure),
            Err(panic) => Returned::Failure(Failure::retryable(
                Cause::Error,
                format!("workload panicked: {}", panic_text(panic.as_ref())),
            )),
        };
        task.state.close_group();
        context.remove_scratch();
        self.held.finish(&task.state, returned);
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}
