//! The benchmark: every budget of the project as one table, on fresh clusters, beside upstream where it is given.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

mod load;
mod netns;
mod report;
mod rest;
mod upstream;
mod usage;
mod work;
mod world;

use load::Load;
use report::Row;
use rest::Protocol;
use work::Work;
use world::Flavor;

/// Measures what targets name. Without rows, measures all of them.
#[derive(Parser, Clone, Debug)]
#[command(name = "bench")]
pub struct Options {
    /// The rows to measure, by name; `grpc-*` is all that begin so.
    rows: Vec<String>,
    /// Print the names of the rows.
    #[arg(long)]
    list: bool,
    /// Where our binaries lie; without it beside this program.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Where upstream's kube-apiserver, kube-controller-manager, kube-scheduler and etcd lie, to be measured in turn.
    #[arg(long, value_name = "DIR", env = "UPSTREAM_BIN")]
    upstream: Option<PathBuf>,
    /// Any missed budget is an error, not only one that is held.
    #[arg(long)]
    check: bool,
    /// Requests in flight.
    #[arg(long, default_value_t = 32, value_parser = positive)]
    in_flight: usize,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 2, value_parser = positive)]
    threads: usize,
    /// The most requests of one row; by default what the row thinks right.
    #[arg(long, value_parser = positive)]
    count: Option<usize>,
    /// The most seconds of one row's load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The bytes in a ConfigMap.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Hollow nodes.
    #[arg(long, default_value_t = 1000, value_parser = positive)]
    nodes: usize,
    /// Speak HTTP/2, on a connection for each thread, rather than HTTP/1.1 on one for each request in flight.
    #[arg(long)]
    http2: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "it is a number above 0".to_owned())
}

impl Options {
    /// The load of a row, of at most so many requests unless the caller says otherwise.
    pub fn load(&self, count: usize) -> Load {
        let count = self.count.unwrap_or(count);
        Load {
            in_flight: self.in_flight,
            threads: self.threads,
            count,
            time: Duration::from_secs(self.seconds),
        }
    }

    /// Which HTTP the load speaks.
    pub fn protocol(&self) -> Protocol {
        if self.http2 { Protocol::Http2 } else { Protocol::Http1 }
    }

    /// How long preparations may take.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn flavors(&self) -> Result<Vec<Flavor>> {
        let beside = || -> Result<PathBuf> {
            let program = std::env::current_exe()?;
            Ok(program.parent().context("a program lies in a folder")?.to_owned())
        };
        let ours = self.bin_dir.clone().map_or_else(beside, Ok)?;
        Ok(std::iter::once(Flavor::Coxswain(ours))
            .chain(self.upstream.clone().map(Flavor::Upstream))
            .collect())
    }
}

/// Runs something on this thread until it is done.
///
/// # Panics
/// When the kernel refuses what a runtime needs.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs a few file descriptors").block_on(future)
}

/// Lets time pass.
#[allow(clippy::disallowed_methods, reason = "a process is observed from outside, where no event reaches")]
pub fn wait(time: Duration) {
    std::thread::sleep(time);
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        work::ALL.iter().for_each(|work| println!("{:16} {}", work.name, work.title));
        return ExitCode::SUCCESS;
    }
    match measure(&options) {
        Ok(rows) => {
            println!("{}", report::table(&rows));
            let counts = |row: &&Row| options.check || row.budget.held || row.outcome.is_err();
            let missed = rows.iter().filter(counts).any(|row| row.met() == Some(false));
            if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<Vec<Row>> {
    let works = work::select(&options.rows).map_err(anyhow::Error::msg)?;
    let flavors = options.flavors()?;
    netns::enter()?;
    let mut rows = Vec::new();
    for work in works {
        let mut of_work: Vec<Row> = Vec::new();
        for flavor in flavors.iter().filter(|f| work.comparable || matches!(f, Flavor::Coxswain(_))) {
            eprintln!("{} {}", flavor.name(), work.name);
            of_work.push(row(work, flavor, options));
        }
        compare(&mut of_work);
        rows.extend(of_work);
    }
    Ok(rows)
}

fn row(work: &Work, flavor: &Flavor, options: &Options) -> Row {
    let ours = matches!(flavor, Flavor::Coxswain(_));
    let outcome = (work.run)(flavor, options).map_err(|error| format!("{error:#}"));
    Row {
        title: work.title.to_owned(),
        flavor: flavor.name(),
        unit: work.unit,
        budget: if ours { work.budget } else { Default::default() },
        upstream: work.upstream.filter(|_| ours).map(|figure| (figure, false)),
        outcome,
    }
}

/// A figure that upstream reached in this very run is worth more than one that is remembered.
fn compare(rows: &mut [Row]) {
    if let [ours, theirs] = rows
        && let Ok(outcome) = &theirs.outcome
    {
        ours.upstream = Some((outcome.figure, true));
    }
}
