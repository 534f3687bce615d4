//! The acts behind a pod's steps. Each runs beside the pod's worker and reports its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::meta::MetaExt;
use client::EventType::{Normal, Warning};
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::container::{self, Parts};
use super::env::{self, Facts};
use super::state::go_duration;
use super::step::{grace_of, pod_label};
use super::{lifecycle, sandbox, security};
use crate::context::Ctx;
use crate::dns;
use crate::images::{ImageError, Notice, Present, PullPolicy, credentials};
use crate::runtime::RuntimeError;
use crate::volumes::{self, VolumeError, mounts, subpath, teardown};

/// Why a container was not started, as its status shows it.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct StartError {
    /// Such as `CreateContainerConfigError`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl StartError {
    fn new(reason: &'static str, message: impl ToString) -> Self {
        Self { reason, message: message.to_string() }
    }

    /// Starting was given up because the pod ends.
    fn cancelled() -> Self {
        Self::new("ContainerCreating", "")
    }
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())
}

fn fs_group(pod: &Pod) -> Option<i64> {
    pod.spec.as_ref()?.security_context.as_ref()?.fs_group
}

/// Sets up the pod's directory, cgroup and volumes. Tells of a failure.
pub async fn mount(ctx: &Ctx, pod: &Arc<Pod>, pod_ips: Vec<String>) -> Result<(), String> {
    let dir = ctx.pod_dir(pod.uid());
    let result = try_mount(ctx, pod, &dir, pod_ips).await;
    if let Err(message) = &result {
        ctx.pod_event(pod, Warning, "FailedMount", message.clone());
    }
    result
}

async fn try_mount(ctx: &Ctx, pod: &Arc<Pod>, dir: &Path, pod_ips: Vec<String>) -> Result<(), String> {
    let failed = |(volume, error): (String, VolumeError)| {
        format!("MountVolume.SetUp failed for volume {volume:?} : {error}")
    };
    let prepared = volumes::prepare(&ctx.objects, pod, &ctx.facts(pod_ips), dir).await.map_err(failed)?;
    let (group, dir, cgroups, subject) = (fs_group(pod), dir.to_owned(), ctx.cgroups.clone(), pod.clone());
    blocking(move || {
        std::fs::create_dir_all(&dir).map_err(|e| format!("create {}: {e}", dir.display()))?;
        cgroups.create_pod(&subject).map_err(|e| {
            format!("{e}: {}", std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default())
        })?;
        prepared.iter().try_for_each(|v| volumes::set_up(v, group).map_err(|e| failed((v.name.clone(), e))))
    })
    .await?
}

/// Brings volumes that are made from the API up to date.
pub async fn refresh(ctx: &Ctx, pod: &Arc<Pod>, pod_ips: Vec<String>) -> Result<bool, String> {
    let dir = ctx.pod_dir(pod.uid());
    let failed = |(volume, error): (String, VolumeError)| format!("volume {volume:?}: {error}");
    let prepared = volumes::prepare(&ctx.objects, pod, &ctx.facts(pod_ips), &dir).await.map_err(failed)?;
    let group = fs_group(pod);
    blocking(move || {
        let mut changed = false;
        for volume in &prepared {
            changed |= volumes::refresh(volume, group).map_err(|e| failed((volume.name.clone(), e)))?;
        }
        Ok(changed)
    })
    .await?
}

/// Makes the pod's sandbox. Tells of a failure.
pub async fn create_sandbox(ctx: &Ctx, pod: &Arc<Pod>, attempt: u32) -> Result<String, String> {
    let config = sandbox::config(pod, attempt, &ctx.cgroups.parent(pod), &ctx.node);
    let logs = config.log_directory.clone();
    let result = match tokio::fs::create_dir_all(&logs).await {
        Ok(()) => ctx.runtime.run_sandbox(config, "").await.map_err(|e| e.to_string()),
        Err(error) => Err(format!("create {logs}: {error}")),
    };
    result.map_err(|message| {
        let message = format!("Failed to create pod sandbox: {message}");
        ctx.pod_event(pod, Warning, "FailedCreatePodSandBox", message.clone());
        message
    })
}

/// What starting a container needs to know.
pub struct Start {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its container.
    pub container: Container,
    /// The number of the run.
    pub attempt: u32,
    /// The sandbox, by id and number.
    pub sandbox: (String, u32),
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// Cancelled when the pod ends.
    pub token: CancellationToken,
}

impl Start {
    fn event(&self, ctx: &Ctx, type_: client::EventType, reason: &str, message: String) {
        ctx.container_event(&self.pod, &self.container.name, type_, reason, message);
    }

    fn sandbox_config(&self, ctx: &Ctx) -> cri::PodSandboxConfig {
        sandbox::config(&self.pod, self.sandbox.1, &ctx.cgroups.parent(&self.pod), &ctx.node)
    }
}

/// Sees to the image, makes the container, starts it, and runs its postStart hook.
pub async fn start(ctx: &Ctx, start: &Start) -> Result<String, StartError> {
    let image = tokio::select! {
        () = start.token.cancelled() => return Err(StartError::cancelled()),
        image = Box::pin(ensure_image(ctx, start)) => image?,
    };
    let made = tokio::select! {
        () = start.token.cancelled() => return Err(StartError::cancelled()),
        made = configure(ctx, start, &image) => made,
    };
    let config =
        made.inspect_err(|e| start.event(ctx, Warning, "Failed", format!("Error: {}", e.message)))?;
    // From here on the runtime has the container: no more turning back half-way.
    let failed = |reason: &'static str, error: RuntimeError| {
        let message = error.desc();
        start.event(ctx, Warning, "Failed", format!("Error: {message}"));
        StartError::new(reason, message)
    };
    let creation = ctx.runtime.create_container(&start.sandbox.0, config, start.sandbox_config(ctx));
    let id = Box::pin(creation).await;
    let id = id.map_err(|e| failed("CreateContainerError", e))?;
    start.event(ctx, Normal, "Created", format!("Created container: {}", start.container.name));
    ctx.runtime.start_container(&id).await.map_err(|e| failed("RunContainerError", e))?;
    start.event(ctx, Normal, "Started", format!("Started container {}", start.container.name));
    tracing::info!(pod = %pod_label(&start.pod), container = start.container.name, id, "container started");
    post_start(ctx, start, &id).await?;
    Ok(id)
}

async fn post_start(ctx: &Ctx, start: &Start, id: &str) -> Result<(), StartError> {
    let hook = start.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
    let Some(hook) = hook else { return Ok(()) };
    let host = start.pod_ips.first().map_or("127.0.0.1", String::as_str);
    let limit = Duration::from_secs(24 * 3600);
    let result = tokio::select! {
        () = start.token.cancelled() => return Ok(()),
        result = lifecycle::run(&ctx.runtime, hook, &start.container, id, host, limit) => result,
    };
    let Err(why) = result else { return Ok(()) };
    start.event(ctx, Warning, "FailedPostStartHook", format!("PostStartHook failed: {why}"));
    start.event(ctx, Normal, "Killing", "FailedPostStartHook".into());
    stop(ctx, id, grace_of(&start.pod)).await;
    Err(StartError::new("PostStartHookError", format!("PostStartHook failed: {why}")))
}

async fn ensure_image(ctx: &Ctx, start: &Start) -> Result<Present, StartError> {
    let (pod, container) = (&start.pod, &start.container);
    let image = container.image.clone().unwrap_or_default();
    let mut secrets = Vec::new();
    for name in pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten()) {
        match ctx.objects.secret(pod.namespace(), &name.name).await {
            Ok(Some(secret)) => secrets.push(secret),
            Ok(None) | Err(_) => {
                let message = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    name.name
                );
                ctx.pod_event(pod, Warning, "FailedToRetrieveImagePullSecret", message);
            }
        }
    }
    let auth = credentials(&image, secrets.iter().map(AsRef::as_ref));
    let policy = PullPolicy::of(container.image_pull_policy.as_deref(), &image);
    let notify = |notice| {
        match notice {
        Notice::Pulling => start.event(ctx, Normal, "Pulling", format!("Pulling image {image:?}")),
        Notice::AlreadyPresent => {
            start.event(ctx, Normal, "Pulled", format!("Container image {image:?} already present on machine"));
        }
        Notice::Pulled(alone, in_all, size) => start.event(ctx, Normal, "Pulled", format!(
            "Successfully pulled image {image:?} in {}ms ({}ms including waiting). Image size: {size} bytes.",
            alone.as_millis(), in_all.as_millis())),
    }
    };
    let result = ctx.images.ensure(&image, policy, auth, start.sandbox_config(ctx), notify).await;
    result.map_err(|error| {
        let message = match &error {
            ImageError::Pull(source) => format!("Failed to pull image {image:?}: {source}"),
            other => other.to_string(),
        };
        start.event(ctx, Warning, "Failed", message);
        start.event(ctx, Warning, "Failed", format!("Error: {}", error.reason()));
        if matches!(error, ImageError::Pull(_)) {
            start.event(ctx, Normal, "BackOff", format!("Back-off pulling image {image:?}"));
        }
        StartError::new(error.reason(), error)
    })
}

/// Everything that the runtime must know to make the container.
async fn configure(ctx: &Ctx, start: &Start, image: &Present) -> Result<cri::ContainerConfig, StartError> {
    let config_error = |message: String| StartError::new("CreateContainerConfigError", message);
    let (pod, container) = (&start.pod, &start.container);
    let references = ctx.objects.references(pod.namespace(), container).await;
    let references = references.map_err(|e| config_error(e.to_string()))?;
    let facts = ctx.facts(start.pod_ips.clone());
    let services = ctx.services.list();
    let input = env::Input { pod, container, references: &references, services: &services, facts: &facts };
    let mut env = env::environment(input).map_err(|e| config_error(e.to_string()))?;
    let hostname =
        dns::hostname(pod.spec.as_ref().unwrap_or(&Default::default()), pod.name(), &ctx.node.name);
    if !env.iter().any(|(name, _)| name == "HOSTNAME") {
        env.push(("HOSTNAME".into(), hostname));
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let security = security::of_container(&pod_label(pod), &spec, container, &image.user);
    let security = security.map_err(|e| config_error(e.to_string()))?;
    let mounts = mount_list(ctx, start, &facts, &env).await.map_err(config_error)?;
    let parts = Parts {
        attempt: start.attempt,
        image_ref: &image.id,
        env,
        mounts,
        devices: Vec::new(),
        security,
        memory_capacity: ctx.memory_capacity,
    };
    Ok(container::config(pod, container, parts))
}

fn propagation(mount: &VolumeMount) -> i32 {
    let mode = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
        Some(_) | None => cri::MountPropagation::PropagationPrivate,
    };
    mode as i32
}

fn plain_mount(host: &Path, container: &str) -> cri::Mount {
    cri::Mount {
        host_path: host.display().to_string(),
        container_path: container.to_owned(),
        ..Default::default()
    }
}

/// The container's mounts: volumes, the hosts file, and the file for its last words.
async fn mount_list(
    ctx: &Ctx,
    start: &Start,
    facts: &Facts,
    env: &[(String, String)],
) -> Result<Vec<cri::Mount>, String> {
    let (pod, container) = (start.pod.clone(), start.container.clone());
    let dir = ctx.pod_dir(pod.uid());
    let hosts = hosts_file(ctx, &pod, &facts.pod_ips);
    let lookup: Vec<_> = env.to_vec();
    let attempt = start.attempt;
    blocking(move || {
        let mut list = Vec::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            list.push(volume_mount(&pod, &container, mount, index, &dir, &lookup)?);
        }
        if !list.iter().any(|m| m.container_path == "/etc/hosts") {
            let path = dir.join("etc-hosts");
            write_file(&path, hosts.as_bytes(), 0o644)?;
            list.push(plain_mount(&path, "/etc/hosts"));
        }
        let words = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        if !words.is_empty() {
            let path = last_words(&dir, &container.name, attempt);
            write_file(&path, b"", 0o666)?;
            list.push(plain_mount(&path, words));
        }
        Ok(list)
    })
    .await?
}

/// Where on the node a run's last words are written.
pub fn last_words(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(attempt.to_string())
}

fn hosts_file(ctx: &Ctx, pod: &Pod, ips: &[String]) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    if spec.host_network == Some(true) {
        let node = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        return dns::host_network_hosts_file(&node, aliases);
    }
    let hostname = dns::hostname(&spec, pod.name(), &ctx.node.name);
    let fqdn = dns::fqdn(&spec, &hostname, pod.namespace(), &ctx.node.dns.domain);
    dns::hosts_file(ips, &hostname, fqdn.as_deref(), aliases)
}

fn write_file(path: &Path, data: &[u8], mode: u32) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let write = || {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, data)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    };
    write().map_err(|e: std::io::Error| format!("write {}: {e}", path.display()))
}

fn volume_mount(
    pod: &Pod,
    container: &Container,
    mount: &VolumeMount,
    index: usize,
    dir: &Path,
    env: &[(String, String)],
) -> Result<cri::Mount, String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let volume = volumes.clone().find(|v| v.name == mount.name);
    let volume = volume.ok_or_else(|| {
        format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name)
    })?;
    let root = volumes::path_of(dir, volume);
    let lookup = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let expression = mount.sub_path_expr.as_deref().filter(|s| !s.is_empty());
    let sub = match expression {
        Some(expression) => {
            let expanded = env::expand(expression, lookup);
            if expanded.contains("$(") {
                return Err(format!("missing value for {expression:?}"));
            }
            Some(expanded)
        }
        None => mount.sub_path.clone().filter(|s| !s.is_empty()),
    };
    let host = match sub {
        Some(sub) => {
            let place =
                dir.join("volume-subpaths").join(&volume.name).join(&container.name).join(index.to_string());
            subpath::bind(&root, &sub, &place).map_err(|e| {
                format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}: {e}",
                    mount.name, container.name
                )
            })?
        }
        None => root,
    };
    if volume.host_path.is_some() && !host.exists() {
        // A hostPath without a type is made where nothing stands, as a directory.
        std::fs::create_dir_all(&host).map_err(|e| format!("create {}: {e}", host.display()))?;
    }
    let target = if mount.mount_path.starts_with('/') {
        mount.mount_path.clone()
    } else {
        format!("/{}", mount.mount_path)
    };
    Ok(cri::Mount {
        readonly: mount.read_only == Some(true),
        propagation: propagation(mount),
        ..plain_mount(&host, &target)
    })
}

/// Runs the preStop hook and stops a container; returns when it has ended, however long the runtime is away.
pub async fn kill(ctx: &Ctx, pod: &Arc<Pod>, container: &str, id: &str, host: &str, grace: Duration) {
    let begun = Instant::now();
    let spec = pod.spec.iter().flat_map(crate::resources::all_containers).find(|c| c.name == container);
    let hook = spec.and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
    if let (Some(hook), Some(spec)) = (hook, spec) {
        let run = lifecycle::run(&ctx.runtime, hook, spec, id, host, grace);
        let failure = match tokio::time::timeout(grace, run).await {
            Ok(result) => result.err(),
            Err(_) => Some(format!("preStop hook did not complete within {}", go_duration(grace))),
        };
        if let Some(why) = failure {
            ctx.container_event(
                pod,
                container,
                Warning,
                "FailedPreStopHook",
                format!("PreStopHook failed: {why}"),
            );
        }
    }
    // After a hook that took all the time, the process still gets two seconds to hear the signal.
    let least = if hook.is_some() {
        Duration::from_secs(2).min(grace.max(Duration::from_secs(2)))
    } else {
        Duration::ZERO
    };
    let left = grace.saturating_sub(begun.elapsed());
    let left = Duration::from_secs(left.as_secs() + u64::from(left.subsec_millis() >= 500));
    stop(ctx, id, left.max(least)).await;
    tracing::info!(pod = %pod_label(pod), container, id, "container stopped");
}

/// Stops a container; tries until the runtime says that it has ended.
async fn stop(ctx: &Ctx, id: &str, grace: Duration) {
    let mut wait = Duration::from_millis(500);
    while let Err(error) = ctx.runtime.stop_container(id, grace).await {
        tracing::warn!(id, %error, "stopping a container failed; trying again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(10));
    }
}

/// Stops a pod's sandboxes, and gives back its volumes and its cgroup.
pub async fn tear_down(ctx: &Ctx, uid: &str, sandboxes: &[String]) -> Result<(), String> {
    for id in sandboxes {
        ctx.runtime.stop_sandbox(id).await.map_err(|e| e.to_string())?;
    }
    let (dir, cgroups, uid) = (ctx.pod_dir(uid), ctx.cgroups.clone(), uid.to_owned());
    blocking(move || {
        teardown::volumes(&dir).map_err(|e| e.to_string())?;
        cgroups.remove_pod(&uid).map_err(|e| e.to_string())
    })
    .await?
}

/// Removes what is left of a pod: containers, sandboxes, logs, its directory.
pub async fn remove(ctx: &Ctx, pod: &Pod, containers: &[String], sandboxes: &[String]) -> Result<(), String> {
    for id in containers {
        ctx.runtime.remove_container(id).await.map_err(|e| e.to_string())?;
    }
    for id in sandboxes {
        ctx.runtime.stop_sandbox(id).await.map_err(|e| e.to_string())?;
        ctx.runtime.remove_sandbox(id).await.map_err(|e| e.to_string())?;
    }
    let dir = ctx.pod_dir(pod.uid());
    let named = !pod.name().is_empty();
    let logs = named.then(|| PathBuf::from(sandbox::log_directory(&ctx.node.log_root, pod)));
    blocking(move || {
        if let Some(logs) = logs {
            match std::fs::remove_dir_all(&logs) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("remove {}: {error}", logs.display()));
                }
                _ => {}
            }
        }
        teardown::directory(&dir).map_err(|e| e.to_string())
    })
    .await?
}

/// Whether anything is mounted for a pod; what is left over by an earlier kubelet counts.
pub fn has_mounts(dir: &Path) -> bool {
    mounts::beneath(dir).is_ok_and(|points| !points.is_empty())
}

/// The most of a container's last words that is shown, in bytes.
const LAST_WORDS: usize = 4096;
/// The most of a log that stands in for them, in bytes and lines.
const LAST_LOG: (usize, usize) = (2048, 80);

/// A container's last words: its termination message, or the end of its log where that stands in.
pub fn message(dir: &Path, log: &Path, container: &str, attempt: u32, from_log: bool) -> String {
    let words = std::fs::read(last_words(dir, container, attempt)).unwrap_or_default();
    if !words.is_empty() || !from_log {
        return String::from_utf8_lossy(&words[..words.len().min(LAST_WORDS)]).into_owned();
    }
    let text = tail(log, 64 * 1024);
    // Each line of the log is time, stream, flag and text.
    let lines: Vec<_> = text.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap_or_default()).collect();
    let mut last = lines[lines.len().saturating_sub(LAST_LOG.1)..].join("\n");
    if !last.is_empty() {
        last.push('\n');
    }
    let mut cut = last.len().saturating_sub(LAST_LOG.0);
    while !last.is_char_boundary(cut) {
        cut += 1;
    }
    last.split_off(cut)
}

fn tail(path: &Path, most: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
        let mut data = Vec::new();
        file.take(most).read_to_end(&mut data)?;
        Ok::<_, std::io::Error>(data)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
