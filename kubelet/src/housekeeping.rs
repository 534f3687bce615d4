//! What grows without end is cut back: container logs by size, images when the disk fills.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_cri::v1 as cri;
use tokio_util::sync::CancellationToken;

use crate::context::Ctx;
use crate::runtime::{CONTAINER_NAME_LABEL, POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL};

/// How often the sizes of logs are looked at, while containers run.
const LOGS: Duration = Duration::from_secs(10);
/// How often the disk is looked at.
const DISK: Duration = Duration::from_secs(300);
/// How large a container's logs may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// A file of this many bytes is put aside.
    pub bytes: u64,
    /// How many files are kept, the present one among them; at least two.
    pub files: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { bytes: 10 * 1024 * 1024, files: 5 }
    }
}

/// Images are removed when the disk is fuller than this, in percent…
const HIGH: u64 = 85;
/// …until it is no fuller than this.
const LOW: u64 = 80;

/// The file of a container's log, from its labels and its number.
fn log_path(root: &str, container: &cri::Container) -> Option<PathBuf> {
    let label = |name: &str| container.labels.get(name);
    let attempt = container.metadata.as_ref()?.attempt;
    let pod = format!("{}_{}_{}", label(POD_NAMESPACE_LABEL)?, label(POD_NAME_LABEL)?, label(POD_UID_LABEL)?);
    Some(Path::new(root).join(pod).join(label(CONTAINER_NAME_LABEL)?).join(format!("{attempt}.log")))
}

/// Which of the files put aside (oldest first) are too many.
pub fn surplus(mut aside: Vec<PathBuf>, files: usize) -> Vec<PathBuf> {
    aside.sort();
    aside.truncate(aside.len().saturating_sub(files.saturating_sub(1)));
    aside
}

fn rotate(log: &Path, files: usize, now: Timestamp) -> std::io::Result<()> {
    let stamp = now.strftime("%Y%m%d-%H%M%S");
    let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::fs::rename(log, log.with_file_name(format!("{name}.{stamp}")))?;
    let Some(dir) = log.parent() else { return Ok(()) };
    let prefix = format!("{name}.");
    let aside = std::fs::read_dir(dir)?.flatten().map(|e| e.path());
    let aside = aside.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix)));
    surplus(aside.collect(), files).iter().try_for_each(std::fs::remove_file)
}

async fn rotate_logs(ctx: &Ctx, limits: LogLimits) -> Result<(), String> {
    let running = cri::ContainerState::ContainerRunning as i32;
    let containers = ctx.runtime.containers(&[]).await.map_err(|e| e.to_string())?;
    for container in containers.iter().filter(|c| c.state == running) {
        let Some(log) = log_path(&ctx.node.log_root, container) else { continue };
        if !std::fs::metadata(&log).is_ok_and(|m| m.len() > limits.bytes) {
            continue;
        }
        rotate(&log, limits.files, ctx.clock.now()).map_err(|e| format!("rotate {}: {e}", log.display()))?;
        ctx.runtime.reopen_log(&container.id).await.map_err(|e| e.to_string())?;
        tracing::info!(log = %log.display(), "log put aside");
    }
    Ok(())
}

/// Keeps container logs in bounds. `running` says whether there is anything to look at.
pub async fn logs(ctx: Ctx, limits: LogLimits, running: impl Fn() -> bool + Send, token: CancellationToken) {
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(LOGS) => {}
        }
        if running()
            && let Err(error) = rotate_logs(&ctx, limits).await
        {
            tracing::warn!(error, "rotating logs failed");
        }
    }
}

/// The images that nothing uses, the largest first.
pub fn unused<'a>(images: &'a [cri::Image], containers: &[cri::Container]) -> Vec<&'a cri::Image> {
    let named = containers.iter().flat_map(|c| {
        let asked = c.image.as_ref().map(|i| i.image.as_str());
        asked.into_iter().chain([c.image_ref.as_str(), c.image_id.as_str()])
    });
    let used: HashSet<_> = named.collect();
    let is_used = |i: &cri::Image| {
        used.contains(i.id.as_str())
            || i.repo_tags.iter().chain(&i.repo_digests).any(|n| used.contains(n.as_str()))
    };
    // The sandbox's image is used by every pod, though no container names it.
    let is_pause = |i: &cri::Image| i.repo_tags.iter().any(|t| t.contains("/pause:"));
    let mut list: Vec<_> = images.iter().filter(|i| !i.pinned && !is_used(i) && !is_pause(i)).collect();
    list.sort_by_key(|i| std::cmp::Reverse(i.size));
    list
}

/// How full a file system is, in percent; nothing when it cannot be told.
fn fullness(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok().filter(|s| s.f_blocks > 0)?;
    Some(100 - stat.f_bavail.saturating_mul(100) / stat.f_blocks)
}

async fn collect_images(ctx: &Ctx) -> Result<(), String> {
    let fs = ctx.runtime.image_fs().await.map_err(|e| e.to_string())?;
    let mount =
        fs.image_filesystems.first().and_then(|f| f.fs_id.as_ref()).map(|i| PathBuf::from(&i.mountpoint));
    let path = mount.unwrap_or_else(|| ctx.root.clone());
    if fullness(&path).is_none_or(|f| f < HIGH) {
        return Ok(());
    }
    let images = ctx.runtime.list_images().await.map_err(|e| e.to_string())?;
    let containers = ctx.runtime.containers(&[]).await.map_err(|e| e.to_string())?;
    for image in unused(&images, &containers) {
        if fullness(&path).is_none_or(|f| f <= LOW) {
            break;
        }
        tracing::info!(
            image = image.id,
            size = image.size,
            "removing an unused image, the disk is nearly full"
        );
        ctx.runtime.remove_image(&image.id).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Removes unused images when the disk is nearly full.
pub async fn images(ctx: Ctx, token: CancellationToken) {
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(DISK) => {}
        }
        if let Err(error) = collect_images(&ctx).await {
            tracing::warn!(error, "collecting unused images failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_files_of_a_log_are_kept() {
        let files: Vec<_> = (1..=6).map(|n| PathBuf::from(format!("0.log.{n}"))).collect();
        assert_eq!(surplus(files, 5), [PathBuf::from("0.log.1"), PathBuf::from("0.log.2")]);
        assert!(surplus(vec!["0.log.1".into()], 5).is_empty());
    }

    #[test]
    fn only_images_that_nothing_uses_are_unused() {
        let image = |id: &str, tag: &str, size| cri::Image {
            id: id.into(),
            repo_tags: vec![tag.into()],
            size,
            ..Default::default()
        };
        let images = [
            image("1", "a:1", 1),
            image("2", "b:1", 5),
            image("3", "r.io/pause:3.9", 9),
            image("4", "c:1", 7),
        ];
        let container = cri::Container { image_ref: "2".into(), ..Default::default() };
        let ids: Vec<_> = unused(&images, &[container]).iter().map(|i| i.id.as_str()).collect();
        assert_eq!(ids, ["4", "1"]);
    }
}
