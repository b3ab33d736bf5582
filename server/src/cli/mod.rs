//! The command line of the `rootline` binary. Exit codes: 0 answered, 1 error, 2 usage;
//! commands on a directory have their own (`store`).

mod admin;
mod ask;
mod demo;
mod dependencies;
mod query;
mod send;
mod serve;
mod show;
mod spans;
mod store;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Storage for metrics and traces: one node, one store, one timeline.
#[derive(Debug, Parser)]
#[command(name = "rootline", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a storage node.
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    Send(send::SendArgs),
    /// Ask a node.
    Query(query::QueryArgs),
    /// Look after a node.
    Admin(admin::AdminArgs),
    Verify(store::VerifyArgs),
    Inspect(store::InspectArgs),
    Restore(store::RestoreArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // A usage error ends the process with code 2 in here; help and version with 0.
    let cli = Cli::parse();
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(&args),
        Command::Send(args) => send::run(&args),
        Command::Query(args) => query::run(args),
        Command::Admin(args) => admin::run(args),
        Command::Verify(args) => store::verify(&args),
        Command::Inspect(args) => store::inspect(&args),
        Command::Restore(args) => store::restore(&args),
    }
}
