//! The provider that does not exist: shape, journal and behaviour are its arguments.

use shiftboss_tests::provider::{Shape, serve};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, shape, journal, behaviour] = arguments.as_slice() else { return ExitCode::from(2) };
    let Some(shape) = Shape::parse(shape) else { return ExitCode::from(2) };
    let Ok(behaviour) = serde_json::from_str(behaviour) else { return ExitCode::from(2) };
    match serve(shape, Path::new(journal), &behaviour) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
