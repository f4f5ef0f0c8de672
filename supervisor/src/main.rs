//! The program `shiftboss`: the daemon and its command line. Everything is in the library.

fn main() -> std::process::ExitCode {
    shiftboss::cli::main()
}
