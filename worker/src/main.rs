//! The worker with the built-in workloads. Its supervisor starts it.

use shiftboss_worker::workloads::built_in;
use std::process::ExitCode;

fn main() -> ExitCode {
    shiftboss_worker::run(built_in())
}
