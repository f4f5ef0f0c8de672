//! What may not stand where, and why.

/// Which part of a source file a rule reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Code,
    Text,
    Comment,
}

/// Words that may not stand in `part` of any file below `within` but those below `except`.
pub(crate) struct Rule {
    pub(crate) words: &'static [&'static str],
    pub(crate) part: Part,
    pub(crate) within: &'static [&'static str],
    pub(crate) except: &'static [&'static str],
    pub(crate) reason: &'static str,
}

pub(crate) const EVERYWHERE: &[&str] = &[""];
pub(crate) const UNSAFE: &[&str] = &[
    "supervisor/src/os/",
    // The hostile program makes the calls that no honest one needs.
    "supervisor/src/selftest/kernel.rs",
    "worker/src/launcher.rs",
    "worker/src/launcher/",
    "protocol/tests/hostile.rs",
];

pub(crate) const RULES: &[Rule] = &[
    Rule {
        words: &["todo!", "unimplemented!", "dbg!", "process::exit"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &[],
        reason: "finish it, or return an error: nothing may end the process from within",
    },
    Rule {
        words: &[".unwrap()"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &[],
        reason: "say why it cannot fail: expect(\"why this cannot be\")",
    },
    Rule {
        words: &["#[ignore", "should_panic", "fn test_"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &[],
        reason: "a test runs, checks a value, and is named by a sentence of behaviour",
    },
    Rule {
        words: &["TODO", "FIXME", "XXX"],
        part: Part::Comment,
        within: EVERYWHERE,
        except: &[],
        reason: "comments say what is, plans live in issues",
    },
    Rule {
        words: &["thread::sleep", "time::sleep"],
        part: Part::Code,
        within: &["tests/tests/"],
        except: &[],
        reason: "a test waits for a condition, never for a guess",
    },
    Rule {
        words: &["rusqlite"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &["supervisor/src/store/", "supervisor/tests/", "tests/"],
        reason: "store/ is the only user of SQL, and children never open the database",
    },
    Rule {
        words: &["SELECT", "INSERT INTO", "UPDATE", "DELETE FROM", "CREATE TABLE", "PRAGMA"],
        part: Part::Text,
        within: EVERYWHERE,
        // The demo prints the smallest insert for a person to try.
        except: &["supervisor/src/store/", "supervisor/tests/", "tests/", "xtask/src/demo.rs"],
        reason: "store/ is the only user of SQL",
    },
    Rule {
        words: &["fs::copy", "fs::read", "fs::read_to_string", "File::open", "fs::OpenOptions"],
        part: Part::Code,
        within: &["supervisor/src/store/"],
        except: &["supervisor/src/store/tests/"],
        reason: "closing any descriptor of the database drops this process's locks on it",
    },
    Rule {
        words: &["libc::", "nix::", "rustix::"],
        part: Part::Code,
        within: EVERYWHERE,
        // The worker names errors and signals; calls need unsafe, which is kept apart.
        except: &["supervisor/src/os/", "supervisor/src/selftest/", "worker/", "tests/"],
        reason: "system calls have few homes, each with the reasons for their order",
    },
    Rule {
        words: &["unsafe"],
        part: Part::Code,
        within: EVERYWHERE,
        except: UNSAFE,
        reason: "unsafe code lives with the system calls that need it",
    },
    Rule {
        words: &["bincode"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &["protocol/src/frame.rs"],
        reason: "the crate is unmaintained: one file to change when it must go",
    },
    Rule {
        words: &["interprocess", "UnixStream", "UnixListener", "TcpStream", "TcpListener"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &[
            "supervisor/src/link/",
            "supervisor/src/http/",
            "supervisor/src/cli/client.rs",
            // What the hostile program must not reach.
            "supervisor/src/selftest/listeners.rs",
            "supervisor/src/selftest/attempts/sockets.rs",
            "worker/src/connection.rs",
            "worker/src/serve.rs",
            "worker/src/launcher/",
            "worker/tests/",
            "tests/",
        ],
        reason: "sockets are link/'s and http/'s; workers and clients have one file each",
    },
    Rule {
        words: &[
            "crate::cli",
            "crate::clock",
            "crate::config",
            "crate::daemon",
            "crate::http",
            "crate::link",
            "crate::os",
            "crate::store",
            "getrandom",
            "std::env",
            "std::fs",
            "std::io",
            "std::net",
            "std::process",
            "std::thread",
            "tokio",
            "tracing",
            "async",
        ],
        part: Part::Code,
        within: &["supervisor/src/policy/", "supervisor/src/policy.rs"],
        except: &[],
        reason: "policy is pure: events and `now` come in, actions go out, a simulator can run it",
    },
    Rule {
        words: &["crate::daemon"],
        part: Part::Code,
        within: &["supervisor/src/"],
        except: &["supervisor/src/cli/", "supervisor/src/daemon"],
        reason: "only daemon knows all its neighbours; they do not know it",
    },
    Rule {
        words: &["std::env", "std::fs", "std::net", "std::process", "std::thread", "tokio"],
        part: Part::Code,
        within: &["protocol/src/"],
        except: &[],
        reason: "protocol is words and frames: no I/O",
    },
];
