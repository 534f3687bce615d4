//! The work: every row of the table, its budget, and how it is measured.

use anyhow::Result;

use crate::Options;
use crate::report::{Budget, Outcome, Unit};
use crate::world::Flavor;

mod control_plane;
mod etcd;
mod footprint;
mod objects;
mod pods;
mod scale;
mod watch;

/// One row of the table.
pub struct Work {
    /// What the command line calls it.
    pub name: &'static str,
    /// What is done.
    pub title: &'static str,
    /// What its figure counts.
    pub unit: Unit,
    /// Upstream's figure where the targets were set.
    pub upstream: Option<f64>,
    /// What is wanted.
    pub budget: Budget,
    /// Whether upstream's binaries can do it.
    pub comparable: bool,
    /// Does it, on a fresh control plane.
    pub run: fn(&Flavor, &Options) -> Result<Outcome>,
}

const NONE: Budget = Budget { figure: None, p99_ms: None, held: false };

const fn wanted(figure: f64) -> Budget {
    Budget { figure: Some(figure), ..NONE }
}

const fn wanted_within(figure: f64, p99_ms: f64) -> Budget {
    Budget { figure: Some(figure), p99_ms: Some(p99_ms), ..NONE }
}

const fn whole(
    name: &'static str,
    title: &'static str,
    unit: Unit,
    upstream: f64,
    budget: Budget,
    run: fn(&Flavor, &Options) -> Result<Outcome>,
) -> Work {
    Work { name, title, unit, upstream: Some(upstream), budget, comparable: true, run }
}

const fn rest(
    name: &'static str,
    title: &'static str,
    upstream: f64,
    budget: Budget,
    run: fn(&Flavor, &Options) -> Result<Outcome>,
) -> Work {
    Work { name, title, unit: Unit::PerSecond, upstream: Some(upstream), budget, comparable: true, run }
}

const fn grpc(
    name: &'static str,
    title: &'static str,
    run: fn(&Flavor, &Options) -> Result<Outcome>,
) -> Work {
    Work { name, title, unit: Unit::PerSecond, upstream: None, budget: NONE, comparable: false, run }
}

const fn ours(
    name: &'static str,
    title: &'static str,
    unit: Unit,
    budget: Budget,
    run: fn(&Flavor, &Options) -> Result<Outcome>,
) -> Work {
    Work { name, title, unit, upstream: None, budget, comparable: false, run }
}

const fn whole_ours(
    name: &'static str,
    title: &'static str,
    upstream: f64,
    budget: Budget,
    run: fn(&Flavor, &Options) -> Result<Outcome>,
) -> Work {
    Work { name, title, unit: Unit::Seconds, upstream: Some(upstream), budget, comparable: false, run }
}

/// Upstream's service level: 99 of 100 pods run within 5 s.
const fn scale_limits() -> Budget {
    Budget { p99_ms: Some(5_000.0), ..NONE }
}

/// Every row, in the order of the table.
pub const ALL: &[Work] = &[
    whole(
        "cold-start",
        "cold start of the four, until the service account exists",
        Unit::Seconds,
        3.8,
        wanted(0.38),
        control_plane::cold_start,
    ),
    whole(
        "idle-memory",
        "idle resident memory of the four",
        Unit::Megabytes,
        543.0,
        wanted(54.0),
        control_plane::idle_memory,
    ),
    whole("idle-cpu", "idle CPU of the four", Unit::Percent, 4.8, wanted(0.4), control_plane::idle_cpu),
    rest("create", "create ConfigMaps", 2_500.0, wanted_within(7_500.0, 11.0), objects::create),
    rest("get", "get ConfigMaps", 7_000.0, wanted(25_000.0), objects::get),
    rest("list", "list 3,000 ConfigMaps", 50.0, wanted(250.0), objects::list),
    rest("delete", "delete ConfigMaps", 2_300.0, wanted(7_500.0), objects::delete),
    rest(
        "watch",
        "watch: 100 watchers, 1,000 events",
        78_000.0,
        wanted_within(400_000.0, 10.0),
        watch::rest_watch,
    ),
    rest("schedule-1000", "schedule 3,000 pods on 1,000 nodes", 244.0, wanted(2_500.0), scale::schedule_1000),
    rest("schedule-5000", "schedule 5,000 pods on 5,000 nodes", 145.0, wanted(2_500.0), scale::schedule_5000),
    rest(
        "deployment",
        "Deployment of 1,000 until all pods exist",
        1_560.0,
        wanted(5_000.0),
        scale::deployment,
    ),
    whole(
        "peak-memory",
        "peak memory of the four, 5,000 nodes and 5,000 pods",
        Unit::Megabytes,
        2_480.0,
        wanted(250.0),
        scale::peak_memory,
    ),
    rest("store-put", "raw puts of 1 KiB to the store", 6_700.0, NONE, etcd::put),
    whole_ours("pod-start", "pod start, creation to Running", 1.0, NONE, pods::start),
    whole_ours("pod-delete", "pod delete, 1 s grace, until it is gone", 8.0, wanted(1.2), pods::delete),
    ours("hollow", "pods run on hollow nodes", Unit::PerSecond, scale_limits(), scale::hollow),
    grpc("grpc-create", "create ConfigMaps, gRPC", objects::grpc_create),
    grpc("grpc-get", "get ConfigMaps, gRPC", objects::grpc_get),
    grpc("grpc-list", "list 3,000 ConfigMaps, gRPC", objects::grpc_list),
    grpc("grpc-delete", "delete ConfigMaps, gRPC", objects::grpc_delete),
    grpc("grpc-watch", "watch: 100 watchers, 1,000 events, gRPC", watch::grpc_watch),
    ours("up", "coxswain up, to three Ready nodes", Unit::Seconds, wanted(5.0), footprint::up),
    ours("apply", "apply web.yaml, until three pods are Ready", Unit::Seconds, NONE, footprint::apply),
    ours(
        "idle-nodes",
        "idle CPU of all our processes, three nodes",
        Unit::Percent,
        wanted(1.0),
        footprint::idle,
    ),
];

/// The rows whose names are given, or begin with what is given before a `*`; all of them without any name.
///
/// # Errors
/// A name that no row has.
pub fn select(names: &[String]) -> Result<Vec<&'static Work>, String> {
    let fits = |work: &Work, name: &str| match name.strip_suffix('*') {
        Some(start) => work.name.starts_with(start),
        None => work.name == name,
    };
    if let Some(unknown) = names.iter().find(|name| !ALL.iter().any(|work| fits(work, name))) {
        let known: Vec<_> = ALL.iter().map(|work| work.name).collect();
        return Err(format!("no row is called {unknown:?}; there are: {}", known.join(", ")));
    }
    let chosen = |work: &&Work| names.is_empty() || names.iter().any(|name| fits(work, name));
    Ok(ALL.iter().filter(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_name_and_beginning() {
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            select(&names).map(|found| found.iter().map(|w| w.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["get", "create"]), Ok(vec!["create", "get"]));
        assert_eq!(names(&[]).map(|all| all.len()), Ok(ALL.len()));
        assert!(names(&["grpc-*"]).is_ok_and(|found| found.len() == 5));
        assert!(
            names(&["put"]).is_err_and(|e| e.contains("no row is called \"put\"; there are: cold-start"))
        );
    }

    #[test]
    fn no_name_stands_twice() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|w| w.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
