//! Tokens that a program of the operator's prints. This process is sealed and runs nothing: its
//! broker does, which was told before the seal what there is to run.

use super::Mint;
use crate::launcher::{Asked, Errand, leave};
use crate::serve::start::print_error;
use crate::workloads::remote::secrets::Secrets;
use nix::unistd::{User, geteuid};
use serde_json::Value;
use shiftboss_provider::description::Command;
use shiftboss_provider::template::{Into, Scope};
use shiftboss_provider::token::{self, OUTPUT_BYTES_MAX, Token};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Where commands find programs, unless their `env` says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the broker is told of a command. Its environment is clean: what this process was given is
/// not the command's.
///
/// # Errors
/// A sentence: a secret of its environment is missing.
pub(in crate::workloads::remote) fn errand(
    command: &Command,
    secrets: &Secrets,
) -> Result<Errand, String> {
    let home = User::from_uid(geteuid()).ok().flatten().map(|user| user.dir);
    let home = home.map_or_else(|| "/".to_owned(), |dir| dir.display().to_string());
    let mut env = BTreeMap::from([
        ("HOME".to_owned(), home),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("PATH".to_owned(), PATH.to_owned()),
    ]);
    let (known, find) = (BTreeMap::new(), |name: &str| secrets.get(name));
    let scope = Scope { input: &Value::Null, known: &known, secret: &find };
    for (name, value) in &command.env {
        env.insert(name.clone(), value.text(scope, Into::Text)?);
    }
    Ok(Errand {
        argv: command.command.clone(),
        env: env.into_iter().collect(),
        timeout_ms: u64::try_from(command.timeout.0.as_millis()).unwrap_or(u64::MAX),
        output_bytes_max: OUTPUT_BYTES_MAX,
    })
}

/// Has the command run, and reads the token that it prints.
///
/// # Errors
/// A sentence that names the program, with what it has complained of, masked.
pub(super) async fn mint(command: &Command, mint: &Mint) -> Result<Token, String> {
    let program = command.command.first().map_or("", String::as_str);
    let providers = &mint.providers;
    let number = providers.commands.get(&mint.provider.name);
    let (Some(broker), Some(number)) = (&providers.broker, number) else {
        return Err(format!(
            "{program} is not run: its secrets were missing when the worker began"
        ));
    };
    match broker.ask(*number, command.timeout.0).await {
        Asked::Printed(output) => {
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
            token::read(&output, command, wall_ms).map_err(|why| format!("{program} {why}"))
        }
        Asked::Refused { why, complaint } => {
            let words = token::last_words(
                providers.secrets.mask(&String::from_utf8_lossy(&complaint)).as_bytes(),
            );
            let words = if words.is_empty() { words } else { format!(": {words}") };
            Err(format!("{program} {why}{words}"))
        }
        Asked::Gone(why) => {
            print_error(&format!("{why}: this worker gives its jobs back and ends"));
            leave();
            Err(why)
        }
    }
}
