//! The `tidemark` program: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    tidemark::cli::main().into()
}
