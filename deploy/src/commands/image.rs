//! `coxswain image`: loads images from files into the nodes.

use std::path::PathBuf;

use anyhow::{Context, bail};
use component::tasks::Tasks;
use tokio::sync::mpsc;

use super::Target;
use crate::images;
use crate::process::Record;

/// What to do with images.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum ImageCommand {
    /// Load a docker or OCI archive (as `docker save` writes it) into every node that runs.
    Load {
        /// The archive.
        #[arg(value_name = "FILE.tar")]
        file: PathBuf,
    },
    /// List the images of a node.
    List {
        /// The node.
        #[arg(default_value = "node-1")]
        node: String,
    },
}

/// Does it.
///
/// # Errors
/// When the file cannot be read, no node runs, or one does not take it.
pub async fn run(target: &Target, command: &ImageCommand) -> anyhow::Result<()> {
    match command {
        ImageCommand::Load { file } => load(target, file.clone()).await,
        ImageCommand::List { node } => {
            for (name, digest) in images::list(&target.paths.containerd_socket(node)).await? {
                println!("{name}  {digest}");
            }
            Ok(())
        }
    }
}

async fn load(target: &Target, file: PathBuf) -> anyhow::Result<()> {
    let cluster = target.cluster()?;
    let file = std::fs::canonicalize(&file).with_context(|| format!("could not find {}", file.display()))?;
    std::fs::File::open(&file).with_context(|| format!("could not read {}", file.display()))?;
    let runs = |node: &str| {
        Record::read(&target.paths.pid(&format!("{node}/containerd"))).is_some_and(|record| record.is_alive())
    };
    let (running, others): (Vec<_>, Vec<_>) = cluster.nodes.iter().partition(|node| runs(&node.name));
    if running.is_empty() {
        bail!("no node runs");
    }
    let tasks = Tasks::new("image load");
    let (sender, mut results) = mpsc::unbounded_channel();
    for node in &running {
        let socket = target.paths.containerd_socket(&node.name);
        let (name, file, sender) = (node.name.clone(), file.clone(), sender.clone());
        let snapshotter = cluster.snapshotter.clone();
        tasks.spawn(format!("load into {name}"), async move {
            let result = images::load(&socket, &file, &snapshotter).await;
            // The receiver waits for every result.
            let _ = sender.send((name, result));
        });
    }
    drop(sender);
    let mut failures = Vec::new();
    while let Some((node, result)) = results.recv().await {
        match result {
            Ok(said) => {
                for line in said.lines() {
                    println!("{node}: {line}");
                }
            }
            Err(error) => failures.push(format!("{node}: {}", crate::rest::chain(&error))),
        }
    }
    for node in others {
        eprintln!("{} does not run and did not get the image", node.name);
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}
