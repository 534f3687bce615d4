//! The four processes of a control plane with nothing to do: how fast they are there, and what they cost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::objects::plain;
use crate::Options;
use crate::report::Outcome;
use crate::usage::{Meter, memory};
use crate::world::{Flavor, World};

/// The four.
pub const FOUR: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// How often a cold start is repeated; the median counts.
const STARTS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);
/// Until what starting sets off has come to rest.
const SETTLE: Duration = Duration::from_secs(20);
/// For how long nothing happens.
const IDLE: Duration = Duration::from_secs(40);

/// A control plane that works: all four run, and the first controller has done its work.
pub fn up(flavor: &Flavor) -> Result<(World, Duration)> {
    let mut world = World::new(flavor)?;
    let took = start(&mut world)?;
    Ok((world, took))
}

/// Starts all four at once and waits for the `default` service account.
pub fn start(world: &mut World) -> Result<Duration> {
    let server = plain(world)?;
    let began = Instant::now();
    for name in FOUR {
        world.start(name)?;
    }
    while let Err(error) = server.get("/api/v1/namespaces/default/serviceaccounts/default") {
        ensure!(began.elapsed() < PATIENCE, "no service account after {PATIENCE:?}: {error:#}");
        world.revive()?;
        crate::wait(Duration::from_millis(5));
    }
    let took = began.elapsed();
    for name in FOUR {
        world.ready(name)?;
    }
    Ok(took)
}

/// `cold-start`.
pub fn cold_start(flavor: &Flavor, _: &Options) -> Result<Outcome> {
    let times = (0..STARTS).map(|_| up(flavor).map(|(_, took)| took)).collect::<Result<Vec<_>>>()?;
    Ok(Outcome::times(&times, Vec::new(), format!("the median of {STARTS}")))
}

fn at_rest(flavor: &Flavor) -> Result<World> {
    let (world, _) = up(flavor)?;
    crate::wait(SETTLE);
    Ok(world)
}

/// `idle-memory`.
pub fn idle_memory(flavor: &Flavor, _: &Options) -> Result<Outcome> {
    let world = at_rest(flavor)?;
    let resident: Vec<_> = world.processes().into_iter().map(|(n, pid)| (n, memory(pid, "VmRSS:"))).collect();
    let each: Vec<_> = resident.iter().map(|(n, b)| format!("{n} {:.1}", *b as f64 / 1e6)).collect();
    let figure = resident.iter().map(|(_, bytes)| *bytes as f64 / 1e6).sum();
    Ok(Outcome { figure, note: each.join(", "), ..Outcome::default() })
}

/// `idle-cpu`.
pub fn idle_cpu(flavor: &Flavor, _: &Options) -> Result<Outcome> {
    let world = at_rest(flavor)?;
    let meter = Meter::start(&world.processes());
    crate::wait(IDLE);
    let mut usage = meter.read();
    usage.retain(|u| u.name != "bench");
    let figure = usage.iter().map(|u| u.cores * 100.0).sum();
    let each: Vec<_> = usage.iter().map(|u| format!("{} {:.2}", u.name, u.cores * 100.0)).collect();
    Ok(Outcome { figure, usage, note: each.join(", "), ..Outcome::default() })
}
