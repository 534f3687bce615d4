//! One process: started once what it needs is there, adopted if it runs already, restarted when it dies.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use component::tasks::Spawner;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::components::{MACHINE, Role, Spec};
use crate::process::{self, Launch, Place, Process, Record};
use crate::supervise::protocol::{Phase, State, UnitState};
use crate::supervise::{Shared, ready};

/// What is wanted of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It runs.
    Run,
    /// It does not, after it was asked to end.
    Stop,
    /// It does not, at once.
    Killed,
}

/// What a unit is told: what to run, and whether.
#[derive(Clone, Debug)]
struct Order {
    spec: Arc<Spec>,
    wanted: Wanted,
}

/// All units, each with a task of its own.
pub(super) struct Units {
    pub(super) shared: Arc<Shared>,
    tasks: Spawner,
    orders: BTreeMap<String, watch::Sender<Order>>,
}

impl Units {
    pub(super) fn new(shared: Arc<Shared>, tasks: Spawner) -> Self {
        Self { shared, tasks, orders: BTreeMap::new() }
    }

    /// Adds a unit, or tells one that is there what it should run now.
    pub(super) fn add(&mut self, spec: Spec, wanted: Wanted) {
        let spec = Arc::new(spec);
        if let Some(orders) = self.orders.get(&spec.id) {
            orders.send_modify(|order| order.spec = spec);
            return;
        }
        let id = spec.id.clone();
        let (sender, receiver) = watch::channel(Order { spec, wanted });
        self.orders.insert(id.clone(), sender);
        // Everybody sees the unit before it has begun.
        update(&self.shared, &id, |unit| unit.phase = Phase::Waiting);
        let unit = Unit { shared: self.shared.clone(), id: id.clone(), orders: receiver };
        self.tasks.spawn(id, unit.run());
    }

    fn targets<'a>(
        &'a self,
        target: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a watch::Sender<Order>)> {
        let of_target =
            move |id: &str, order: &Order| id == target || order.spec.node.as_deref() == Some(target);
        self.orders.iter().filter(move |(id, orders)| of_target(id, &orders.borrow()))
    }

    /// Tells a process, or all of a node, what is wanted.
    pub(super) fn set(&self, target: &str, wanted: Wanted) -> Result<(), String> {
        let mut found = false;
        for (_, orders) in self.targets(target) {
            orders.send_modify(|order| order.wanted = wanted);
            found = true;
        }
        if found { Ok(()) } else { Err(format!("there is no node and no process called {target:?}")) }
    }

    /// Waits until a process, or all of a node, has stopped.
    pub(super) async fn stopped(&self, target: &str) {
        let ids: Vec<_> = self.targets(target).map(|(id, _)| id.clone()).collect();
        self.all_stopped(&ids).await;
    }

    async fn all_stopped(&self, ids: &[String]) {
        let stopped = |state: &State| {
            ids.iter().all(|id| state.units.get(id).is_none_or(|u| u.phase == Phase::Stopped))
        };
        // The sender lives as long as `self`.
        let _ = self.shared.state.subscribe().wait_for(stopped).await;
    }

    /// Kills everything and waits until it is dead.
    pub(super) async fn kill_all(&self) {
        for orders in self.orders.values() {
            orders.send_modify(|order| order.wanted = Wanted::Killed);
        }
        let ids: Vec<_> = self.orders.keys().cloned().collect();
        self.all_stopped(&ids).await;
    }
}

/// Changes what is known of a unit, if that is a change.
fn update(shared: &Shared, id: &str, change: impl FnOnce(&mut UnitState)) {
    shared.state.send_if_modified(|state| {
        let before = state.units.get(id).cloned();
        let mut after = before.clone().unwrap_or_default();
        change(&mut after);
        if before.as_ref() == Some(&after) {
            return false;
        }
        state.units.insert(id.to_owned(), after);
        state.version += 1;
        true
    });
}

/// How long to wait before a process that ran for `ran` is started again, for the `failures`-th time in a row.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(100)
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
        .min(Duration::from_secs(10))
}

/// A process that ran for so long did not fail to start.
const STABLE: Duration = Duration::from_secs(10);
/// How long a process has to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);

struct Unit {
    shared: Arc<Shared>,
    id: String,
    orders: watch::Receiver<Order>,
}

/// Why a process is no longer watched.
enum End {
    /// It ended.
    Exit(String),
    /// Something else is wanted.
    Order,
}

impl Unit {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let order = self.orders.borrow_and_update().clone();
            if order.wanted != Wanted::Run {
                self.rest(&order).await;
                if self.orders.changed().await.is_err() {
                    return;
                }
                failures = 0;
                continue;
            }
            let begin = Instant::now();
            let process = match self.obtain(&order.spec).await {
                Ok(Some(process)) => process,
                Ok(None) => continue,
                Err(error) => {
                    failures += 1;
                    self.failed(&order.spec, error.to_string(), failures).await;
                    continue;
                }
            };
            match self.watch(&order.spec, &process).await {
                End::Order => {
                    let order = self.orders.borrow().clone();
                    self.end(&process, order.wanted == Wanted::Killed).await;
                    if order.wanted == Wanted::Run {
                        self.update(|unit| unit.restarts += 1);
                    }
                }
                End::Exit(reason) => {
                    failures = if begin.elapsed() > STABLE { 1 } else { failures + 1 };
                    self.update(|unit| unit.restarts += 1);
                    self.failed(&order.spec, reason, failures).await;
                }
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut UnitState)) {
        update(&self.shared, &self.id, change);
    }

    /// Makes sure that nothing runs, and says so.
    async fn rest(&self, order: &Order) {
        if let Some(process) = Record::read(&self.shared.paths.pid(&self.id)).and_then(|r| r.open()) {
            self.end(&process, order.wanted == Wanted::Killed).await;
        }
        self.update(|unit| {
            *unit = UnitState { phase: Phase::Stopped, restarts: unit.restarts, ..Default::default() }
        });
    }

    /// Says why the process does not run, and waits before the next attempt, or until something else is wanted.
    async fn failed(&mut self, spec: &Spec, reason: String, failures: u32) {
        let pause = backoff(failures);
        tracing::warn!(process = %self.id, reason, ?pause, log = %spec.log.display(), "will be started again");
        self.update(|unit| {
            unit.phase = Phase::Failed;
            unit.pid = None;
            unit.message = Some(reason);
        });
        // A change is looked at where this returns to; the sender lives as long as the task.
        let _ = tokio::time::timeout(pause, self.orders.changed()).await;
        self.orders.mark_changed();
    }

    /// The running process: adopted, or started once what it needs is there. `None` if something else is wanted.
    async fn obtain(&mut self, spec: &Arc<Spec>) -> io::Result<Option<Process>> {
        if let Some(process) = Record::read(&self.shared.paths.pid(&self.id)).and_then(|r| r.open()) {
            if process.record.mark == spec.mark() {
                tracing::info!(process = %self.id, pid = process.record.pid, "adopted");
                self.running(&process);
                return Ok(Some(process));
            }
            tracing::info!(process = %self.id, pid = process.record.pid, "replaced: it should run otherwise now");
            self.end(&process, spec.role == Role::Machine).await;
        }
        self.update(|unit| {
            unit.phase = Phase::Waiting;
            unit.pid = None;
        });
        let machine =
            spec.node.as_ref().filter(|_| spec.role == Role::OnNode).map(|node| format!("{node}/{MACHINE}"));
        // A machine that has just died may not have been noticed yet.
        let lives = || {
            machine
                .as_ref()
                .is_none_or(|id| Record::read(&self.shared.paths.pid(id)).is_some_and(|r| r.is_alive()))
        };
        let ready =
            |state: &State, id: &String| state.units.get(id).is_some_and(|unit| unit.phase == Phase::Ready);
        let needed = |state: &State| spec.after.iter().all(|id| ready(state, id)) && lives();
        let mut state = self.shared.state.subscribe();
        tokio::select! {
            // The sender is in `shared`.
            _ = state.wait_for(needed) => {}
            _ = self.orders.changed() => {
                self.orders.mark_changed();
                return Ok(None);
            }
        }
        let binary = spec.binary();
        let mut process = self.start(spec).await?;
        process.record.binary = binary;
        tracing::info!(process = %self.id, pid = process.record.pid, "started");
        process.record.write(&self.shared.paths.pid(&self.id))?;
        self.running(&process);
        Ok(Some(process))
    }

    fn running(&self, process: &Process) {
        self.update(|unit| {
            unit.phase = Phase::Starting;
            unit.pid = Some(process.record.pid);
            unit.message = None;
        });
    }

    async fn start(&self, spec: &Arc<Spec>) -> io::Result<Process> {
        let (shared, spec) = (self.shared.clone(), spec.clone());
        let started = tokio::task::spawn_blocking(move || start(&shared, &spec)).await;
        started.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    /// Waits for the end of the process, or for another order. Says meanwhile whether it does its work.
    async fn watch(&mut self, spec: &Arc<Spec>, process: &Process) -> End {
        let (shared, id) = (self.shared.clone(), self.id.clone());
        let becoming_ready = async {
            ready::wait(&shared, spec, |reason| update(&shared, &id, |unit| unit.message = Some(reason)))
                .await;
            update(&shared, &id, |unit| {
                unit.phase = Phase::Ready;
                unit.message = None;
            });
            std::future::pending::<()>().await;
        };
        let other_order = async {
            loop {
                if self.orders.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                let order = self.orders.borrow_and_update();
                let (spec, record) = (&order.spec, &process.record);
                if order.wanted != Wanted::Run || (spec.mark(), spec.binary()) != (record.mark, record.binary)
                {
                    return;
                }
            }
        };
        tokio::select! {
            exit = process.wait() => End::Exit(exit.unwrap_or_else(|e| e.to_string())),
            () = other_order => {
                self.orders.mark_changed();
                End::Order
            }
            () = becoming_ready => End::Order,
        }
    }

    /// Ends a process: gracefully at first, unless it must die at once.
    async fn end(&self, process: &Process, at_once: bool) {
        let signal = if at_once { Signal::KILL } else { Signal::TERM };
        let end = async {
            process.signal(signal)?;
            if tokio::time::timeout(GRACE, process.wait()).await.is_err() {
                process.signal(Signal::KILL)?;
                process.wait().await?;
            }
            io::Result::Ok(())
        };
        if let Err(error) = end.await {
            tracing::error!(process = %self.id, pid = process.record.pid, %error, "could not be ended");
        }
    }
}

/// Starts a process where it belongs. Blocks.
fn start(shared: &Shared, spec: &Spec) -> io::Result<Process> {
    let launch = Launch {
        program: spec.program.clone(),
        arg0: (spec.role == Role::Machine).then(|| "coxswain".to_owned()),
        args: spec.args.clone(),
        env: spec.env.clone(),
        log: spec.log.clone(),
        cgroup: Some(spec.cgroup.clone()),
    };
    let hierarchies = crate::cgroups::hierarchies()?;
    match (&spec.role, &spec.node) {
        (Role::Machine, Some(node)) => {
            prepare_machine(shared, node)?;
            crate::cgroups::create(&hierarchies, &spec.cgroup)?;
            process::spawn_until_ready(&launch, Place::NewMachine, spec.mark())
        }
        (Role::OnNode, Some(node)) => {
            let id = format!("{node}/{MACHINE}");
            let machine = Record::read(&shared.paths.pid(&id)).filter(Record::is_alive);
            let machine = machine.ok_or_else(|| io::Error::other(format!("{node} does not run")))?;
            process::spawn(&launch, Place::Machine(machine.pid), spec.mark())
        }
        _ => {
            crate::cgroups::create(&hierarchies, &spec.cgroup)?;
            process::spawn(&launch, Place::Host, spec.mark())
        }
    }
}

/// What a machine finds when it boots: its disk, an empty cgroup, and its network.
fn prepare_machine(shared: &Shared, node: &str) -> io::Result<()> {
    let cluster = shared.cluster.borrow().clone();
    let path = cluster.node_cgroup(node);
    for pid in crate::cgroups::members(&path)? {
        // Whatever is left of an earlier life whose first process is dead.
        process::kill(pid);
    }
    crate::cgroups::sweep(&path);
    for dir in ["var-lib", "var-log"] {
        std::fs::create_dir_all(shared.paths.node(node).join(dir))?;
    }
    std::fs::create_dir_all(shared.paths.node_run(node))?;
    let node =
        cluster.node(node).ok_or_else(|| io::Error::other(format!("{node} is no node of the cluster")))?;
    crate::network::plug(&cluster, node).map_err(|e| io::Error::other(crate::rest::chain(&e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_failing_is_started_ever_more_seldom() {
        let millis: Vec<_> = (1..=10).map(|n| backoff(n).as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
        assert_eq!(backoff(u32::MAX), Duration::from_secs(10));
    }
}
