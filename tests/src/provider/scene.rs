//! A stage whose jobs ask a simulated provider.

use super::{Behaviour, Shape, Simulator, check, quick};
use crate::Stage;
use serde_json::{Value, json};

/// A stage, and the provider that its jobs ask; `change` may change its description.
#[must_use]
pub fn stage(
    shape: Shape,
    behaviour: &Behaviour,
    change: impl Fn(&str) -> String,
) -> (Stage, Simulator) {
    let (mut stage, simulator) = dark(shape, behaviour, change);
    stage.start();
    (stage, simulator)
}

/// The same before the supervisor is started.
#[must_use]
pub fn dark(
    shape: Shape,
    behaviour: &Behaviour,
    change: impl Fn(&str) -> String,
) -> (Stage, Simulator) {
    let stage = Stage::dark("");
    let simulator = Simulator::start(shape, behaviour, &stage.path(""));
    simulator.describe(&stage.path(""), |text| change(&quick(text)));
    let (port, out, env) = (simulator.port, stage.file(""), simulator.env());
    stage.reconfigure(
        "",
        &format!(
            "[types.remote]\nnetwork = {{ tcp = [{port}] }}\nroots = {{ write = [{out:?}] }}\n\
             {env}\nrestart = {{ base = \"1ms\" }}"
        ),
    );
    (stage, simulator)
}

/// Changes nothing of a description.
#[must_use]
pub fn same(text: &str) -> String {
    text.to_owned()
}

/// The payload of an operation of this tag and mode, whose file gets the tag's name.
#[must_use]
pub fn payload(stage: &Stage, shape: Shape, tag: &str, mode: &str) -> String {
    json!({
        "provider": shape.name(),
        "input": shape.input(tag, mode),
        "output_dir": stage.file(""),
        "name": tag,
    })
    .to_string()
}

/// Waits for the result of a job.
///
/// # Panics
/// When it does not succeed.
pub fn result(stage: &Stage, id: i64) -> Value {
    let job = stage.wait_for_state(id, "succeeded");
    serde_json::from_str(&job.result.expect("it has a result")).expect("JSON")
}

/// How many requests were of this kind.
#[must_use]
pub fn of_kind(journal: &[check::Line], kind: &str) -> usize {
    journal.iter().filter(|line| line.kind == kind).count()
}
