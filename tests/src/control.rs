//! A client of the control socket that costs no process per question.

use crate::Stage;
use interprocess::local_socket::traits::Stream as _;
use interprocess::local_socket::{GenericFilePath, Stream, ToFsName};
use serde_json::Value;
use shiftboss_protocol::PROTOCOL_VERSION;
use shiftboss_protocol::control::{Greeting, Request, Response};
use shiftboss_protocol::frame;

/// A connection that has greeted.
#[derive(Debug)]
pub struct Control(Stream);

impl Control {
    /// Connects to the supervisor of a stage.
    ///
    /// # Panics
    /// When it does not listen, or does not greet.
    #[must_use]
    pub fn connect(stage: &Stage) -> Self {
        let path = stage.path("run/main/control.sock");
        let name = path.as_path().to_fs_name::<GenericFilePath>().expect("a path");
        let stream = Stream::connect(name).expect("the supervisor listens");
        let greeting = Greeting { protocol: PROTOCOL_VERSION, program: "a test".to_owned() };
        frame::write(&mut &stream, &greeting).expect("written");
        let _: Greeting = frame::read(&mut &stream).expect("read").expect("it greets");
        Self(stream)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Panics
    /// When none comes.
    #[must_use]
    pub fn ask(&self, request: &Request) -> Response {
        frame::write(&mut &self.0, request).expect("written");
        frame::read(&mut &self.0).expect("read").expect("it answers")
    }

    /// What `status` says.
    ///
    /// # Panics
    /// When it says no JSON.
    #[must_use]
    pub fn status(&self) -> Value {
        match self.ask(&Request::Status) {
            Response::Json(text) => serde_json::from_str(&text).expect("it is JSON"),
            other => panic!("{other:?}"),
        }
    }
}
