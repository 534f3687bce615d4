//! The built-in images, and loading archives of images into nodes.

use std::io;
use std::path::Path;

use tokio::process::Command;

mod archive;

pub use archive::{Image, Written, write};

/// The image that holds a pod's namespaces.
pub const PAUSE: &str = "localhost/coxswain/pause:1";
/// The image of the sample: a small web server that is also a client.
pub const WEBSERVER: &str = "localhost/coxswain/webserver:1";

const PAUSE_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
const WEBSERVER_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/webserver"));

/// Why an image could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The program that loads it could not be run.
    #[error("could not run ctr")]
    Run(#[source] io::Error),
    /// It said no.
    #[error("containerd did not take {archive}: {stderr}")]
    Refused {
        /// The archive.
        archive: String,
        /// What it said.
        stderr: String,
    },
    /// The archive cannot be written.
    #[error("could not write the archive of the built-in images")]
    Write(#[source] io::Error),
}

/// The program of [`PAUSE`], which also holds a node's namespaces.
pub fn pause_program() -> &'static [u8] {
    PAUSE_PROGRAM
}

/// The built-in images.
pub fn built_in() -> Vec<Image> {
    let image = |name: &str, program: &'static [u8], path: &str, user: &str, port: Option<u16>| Image {
        name: name.to_owned(),
        program,
        path: path.to_owned(),
        user: user.to_owned(),
        port,
        dirs: vec!["tmp".into(), "etc".into()],
    };
    vec![
        image(PAUSE, PAUSE_PROGRAM, "pause", "65535:65535", None),
        image(WEBSERVER, WEBSERVER_PROGRAM, "webserver", "65534:65534", Some(8080)),
    ]
}

/// The built-in images as an archive, and what is in it.
///
/// # Errors
/// When it cannot be written.
pub fn built_in_archive() -> Result<(Vec<u8>, Vec<Written>), ImageError> {
    let mut archive = Vec::new();
    let written = write(&built_in(), &mut archive).map_err(ImageError::Write)?;
    Ok((archive, written))
}

async fn ctr(socket: &Path, args: &[&str]) -> Result<std::process::Output, ImageError> {
    let program = crate::host::find_program("ctr").unwrap_or_else(|| "ctr".into());
    let mut command = Command::new(program);
    command
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io", "images"])
        .args(args)
        .kill_on_drop(true);
    command.output().await.map_err(ImageError::Run)
}

/// The names and digests of a node's images.
///
/// # Errors
/// When containerd does not answer.
pub async fn list(socket: &Path) -> Result<Vec<(String, String)>, ImageError> {
    let output = ctr(socket, &["list"]).await?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ImageError::Refused { archive: "a question for its images".into(), stderr });
    }
    Ok(parse_list(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_list(table: &str) -> Vec<(String, String)> {
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?.to_owned(), fields.nth(1)?.to_owned()))
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// Loads a docker or OCI archive into a node and returns what containerd said about it.
///
/// # Errors
/// When containerd does not take it.
pub async fn load(socket: &Path, archive: &Path, snapshotter: &str) -> Result<String, ImageError> {
    let file = archive.to_string_lossy();
    let output = ctr(socket, &["import", "--snapshotter", snapshotter, &file]).await?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(ImageError::Refused { archive: file.into_owned(), stderr })
}

/// Loads the archive of the built-in images into a node, unless it has them all. Returns whether it was loaded.
///
/// # Errors
/// When containerd does not answer or does not take it.
pub async fn ensure(
    socket: &Path,
    archive: &Path,
    wanted: &[Written],
    snapshotter: &str,
) -> Result<bool, ImageError> {
    let present = list(socket).await?;
    if wanted.iter().all(|image| present.contains(&(image.name.clone(), image.digest.clone()))) {
        return Ok(false);
    }
    load(socket, archive, snapshotter).await.map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_images_is_read_by_columns() {
        let table = "REF                        TYPE                     DIGEST      SIZE    PLATFORMS   LABELS\n\
                     localhost/coxswain/pause:1 application/vnd.oci.x    sha256:abc  1.1 MiB linux/amd64 a=b\n";
        assert_eq!(parse_list(table), [("localhost/coxswain/pause:1".to_owned(), "sha256:abc".to_owned())]);
        assert_eq!(parse_list("REF TYPE DIGEST\n"), []);
    }

    #[test]
    fn programs_in_images_need_nothing_beside_them() {
        for (program, limit) in [(PAUSE_PROGRAM, 2 << 20), (WEBSERVER_PROGRAM, 2 << 20)] {
            assert_eq!(&program[..4], b"\x7fELF");
            assert!(program.len() < limit, "{} bytes", program.len());
            let interpreter = b"/ld-linux";
            assert!(
                !program.windows(interpreter.len()).any(|w| w == interpreter),
                "it asks for a dynamic linker"
            );
        }
    }
}
