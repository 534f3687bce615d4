//! Control groups of the node's pods: one for all, one for each quality of service, one for each pod.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::resources::{self, CPU_PERIOD, Qos, cpu_quota, cpu_shares};

/// A control group that could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {path}")]
pub struct CgroupError {
    path: String,
    #[source]
    source: io::Error,
}

/// How the kernel shows control groups here.
#[derive(Clone, Debug, PartialEq)]
enum Hierarchy {
    /// One tree.
    Unified(PathBuf),
    /// A tree for each controller, of which those that matter are present.
    Legacy(Vec<(String, PathBuf)>),
}

/// Makes and removes the control groups beneath a root.
#[derive(Clone, Debug)]
pub struct Cgroups {
    hierarchy: Hierarchy,
    /// `/kubepods` beneath `--cgroup-root`; none when pods have no groups of their own.
    root: Option<String>,
}

/// A pod's cgroup as the runtime is told of it.
pub fn pod_cgroup(root: &str, qos: Qos, uid: &str) -> String {
    match qos {
        Qos::Guaranteed => format!("{root}/pod{uid}"),
        Qos::Burstable => format!("{root}/burstable/pod{uid}"),
        Qos::BestEffort => format!("{root}/besteffort/pod{uid}"),
    }
}

/// Limits of a group, in the kernel's units; nothing is set for what is unset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Relative weight.
    pub cpu_shares: Option<i64>,
    /// Microseconds in each period.
    pub cpu_quota: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
}

impl Limits {
    /// The limits of a pod as a whole.
    pub fn of(spec: &PodSpec) -> Self {
        let cpu = resources::pod_request(spec, "cpu").to_milli();
        Self {
            cpu_shares: Some(if Qos::of(spec) == Qos::BestEffort { 2 } else { cpu_shares(cpu) }),
            cpu_quota: resources::pod_limit(spec, "cpu").map(|a| cpu_quota(a.to_milli())),
            memory: resources::pod_limit(spec, "memory").map(|a| a.to_units()),
        }
    }
}

/// The weight that cgroup v2 uses for v1's shares.
fn weight(shares: i64) -> i64 {
    (1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142).clamp(1, 10_000)
}

fn settings_v2(limits: Limits) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    settings.extend(limits.cpu_shares.map(|s| ("cpu.weight", weight(s).to_string())));
    settings.extend(limits.cpu_quota.map(|q| ("cpu.max", format!("{q} {CPU_PERIOD}"))));
    settings.extend(limits.memory.map(|m| ("memory.max", m.to_string())));
    settings
}

fn settings_v1(controller: &str, limits: Limits) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    match controller {
        "cpu" => {
            settings.extend(limits.cpu_shares.map(|s| ("cpu.shares", s.to_string())));
            if let Some(quota) = limits.cpu_quota {
                settings.push(("cpu.cfs_period_us", CPU_PERIOD.to_string()));
                settings.push(("cpu.cfs_quota_us", quota.to_string()));
            }
        }
        "memory" => settings.extend(limits.memory.map(|m| ("memory.limit_in_bytes", m.to_string()))),
        _ => {}
    }
    settings
}

fn in_path(path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.display().to_string();
    move |source| CgroupError { path, source }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Cgroups {
    /// Looks at the machine's hierarchy. `root` is `--cgroup-root`; `per_qos` is `--cgroups-per-qos`.
    pub fn new(mount: &Path, root: &str, per_qos: bool) -> Self {
        let hierarchy = if mount.join("cgroup.controllers").exists() {
            Hierarchy::Unified(mount.to_owned())
        } else {
            // Controllers that are mounted together are reached by either name.
            let names = [
                "cpu",
                "cpuacct",
                "memory",
                "pids",
                "cpuset",
                "blkio",
                "devices",
                "freezer",
                "hugetlb",
                "net_cls",
                "net_prio",
                "perf_event",
                "rdma",
                "misc",
                "systemd",
                "unified",
            ];
            Hierarchy::Legacy(
                names
                    .iter()
                    .filter(|n| mount.join(n).is_dir())
                    .map(|n| ((*n).to_owned(), mount.join(n)))
                    .collect(),
            )
        };
        let root = per_qos.then(|| format!("{}/kubepods", root.trim_end_matches('/')));
        Self { hierarchy, root }
    }

    /// The pod's cgroup as the runtime is told of it; empty when the runtime shall choose.
    pub fn parent(&self, pod: &Pod) -> String {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.root.as_ref().map(|root| pod_cgroup(root, resources::qos(pod), uid)).unwrap_or_default()
    }

    /// The groups of all pods and of each class. `memory` and `cpu_milli` are what the pods may have in all.
    pub fn prepare(&self, memory: i64, cpu_milli: i64) -> Result<(), CgroupError> {
        let Some(root) = &self.root else { return Ok(()) };
        let all = Limits { cpu_shares: Some(cpu_shares(cpu_milli)), cpu_quota: None, memory: Some(memory) };
        self.create(root, all)?;
        self.create(&format!("{root}/burstable"), Limits::default())?;
        self.create(&format!("{root}/besteffort"), Limits { cpu_shares: Some(2), ..Limits::default() })
    }

    /// Makes a pod's group with its limits, or sets them anew.
    pub fn create_pod(&self, pod: &Pod) -> Result<(), CgroupError> {
        let (Some(_), Some(spec)) = (&self.root, &pod.spec) else { return Ok(()) };
        self.create(&self.parent(pod), Limits::of(spec))
    }

    /// Removes a pod's group, in whichever class it is.
    pub fn remove_pod(&self, uid: &str) -> Result<(), CgroupError> {
        let Some(root) = &self.root else { return Ok(()) };
        [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort]
            .into_iter()
            .try_for_each(|qos| self.remove(&pod_cgroup(root, qos, uid)))
    }

    /// The uids of the pods that have groups here.
    pub fn pods(&self) -> Vec<String> {
        let (Some(root), Some(tree)) = (&self.root, self.trees().first().cloned()) else { return Vec::new() };
        let classes = ["", "/burstable", "/besteffort"];
        let dirs = classes.iter().filter_map(|class| {
            std::fs::read_dir(tree.join(format!("{root}{class}").trim_start_matches('/'))).ok()
        });
        let names = dirs.flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter_map(|n| n.strip_prefix("pod").map(str::to_owned)).collect()
    }

    fn trees(&self) -> Vec<PathBuf> {
        match &self.hierarchy {
            Hierarchy::Unified(mount) => vec![mount.clone()],
            Hierarchy::Legacy(controllers) => {
                let ours = |name: &str| matches!(name, "cpu" | "memory" | "pids");
                controllers.iter().filter(|(name, _)| ours(name)).map(|(_, path)| path.clone()).collect()
            }
        }
    }

    fn create(&self, cgroup: &str, limits: Limits) -> Result<(), CgroupError> {
        let relative = cgroup.trim_start_matches('/');
        match &self.hierarchy {
            Hierarchy::Unified(mount) => {
                enable_controllers(mount, relative)?;
                let path = mount.join(relative);
                std::fs::create_dir_all(&path).map_err(in_path(&path))?;
                write_all(&path, &settings_v2(limits))
            }
            Hierarchy::Legacy(controllers) => {
                let ours =
                    controllers.iter().filter(|(n, _)| matches!(n.as_str(), "cpu" | "memory" | "pids"));
                for (name, mount) in ours {
                    let path = mount.join(relative);
                    std::fs::create_dir_all(&path).map_err(in_path(&path))?;
                    write_all(&path, &settings_v1(name, limits))?;
                }
                Ok(())
            }
        }
    }

    fn remove(&self, cgroup: &str) -> Result<(), CgroupError> {
        let relative = cgroup.trim_start_matches('/');
        let mounts: Vec<_> = match &self.hierarchy {
            Hierarchy::Unified(mount) => vec![mount],
            // The runtime makes the group in every tree; all of them go.
            Hierarchy::Legacy(controllers) => controllers.iter().map(|(_, path)| path).collect(),
        };
        for mount in mounts {
            let path = mount.join(relative);
            remove_tree(&path).map_err(in_path(&path))?;
        }
        Ok(())
    }
}

/// Lets each group on the way hand its controllers down.
fn enable_controllers(mount: &Path, relative: &str) -> Result<(), CgroupError> {
    let mut path = mount.to_owned();
    let available = std::fs::read_to_string(mount.join("cgroup.controllers")).map_err(in_path(mount))?;
    let wanted: Vec<_> = ["cpu", "memory", "pids", "cpuset", "io"]
        .into_iter()
        .filter(|c| available.split_whitespace().any(|a| a == *c))
        .map(|c| format!("+{c}"))
        .collect();
    for part in relative.split('/') {
        let control = path.join("cgroup.subtree_control");
        std::fs::write(&control, wanted.join(" ")).map_err(in_path(&control))?;
        path.push(part);
        std::fs::create_dir_all(&path).map_err(in_path(&path))?;
    }
    Ok(())
}

fn write_all(path: &Path, settings: &[(&str, String)]) -> Result<(), CgroupError> {
    settings.iter().try_for_each(|(name, value)| {
        let file = path.join(name);
        std::fs::write(&file, value).map_err(in_path(&file))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_become_settings() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}]}))
        .unwrap();
        let limits = Limits::of(&spec);
        assert_eq!(
            settings_v1("cpu", limits),
            [
                ("cpu.shares", "512".to_owned()),
                ("cpu.cfs_period_us", "100000".into()),
                ("cpu.cfs_quota_us", "50000".into())
            ]
        );
        assert_eq!(settings_v1("memory", limits), [("memory.limit_in_bytes", "67108864".to_owned())]);
        assert_eq!(settings_v2(limits)[1], ("cpu.max", "50000 100000".to_owned()));
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }

    #[test]
    fn pods_are_grouped_by_class() {
        assert_eq!(pod_cgroup("/c/kubepods", Qos::Guaranteed, "u"), "/c/kubepods/podu");
        assert_eq!(pod_cgroup("/c/kubepods", Qos::BestEffort, "u"), "/c/kubepods/besteffort/podu");
    }

    #[test]
    fn groups_are_made_found_and_removed() {
        let mount = tempfile::tempdir().unwrap();
        for controller in ["cpu", "memory", "freezer"] {
            std::fs::create_dir(mount.path().join(controller)).unwrap();
        }
        let groups = Cgroups::new(mount.path(), "/node", true);
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": []}})).unwrap();
        groups.create_pod(&pod).unwrap();
        assert_eq!(groups.pods(), ["u"]);
        // Ordinary files stand in the way of rmdir here, as they do not in a real control group.
        let dir = mount.path().join("cpu/node/kubepods/besteffort/podu");
        std::fs::remove_file(dir.join("cpu.shares")).unwrap();
        groups.remove_pod("u").unwrap();
        assert!(groups.pods().is_empty());
    }
}
