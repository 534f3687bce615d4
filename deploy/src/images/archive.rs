//! Writes images from static programs as one archive, in the layout of OCI and with docker's manifest beside it.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image that holds one static program.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name with registry and tag.
    pub name: String,
    /// The program.
    pub program: &'static [u8],
    /// Where the program lies, without the leading slash; it is the entry point.
    pub path: String,
    /// As whom it runs.
    pub user: String,
    /// The port on which it listens.
    pub port: Option<u16>,
    /// Directories to be there, without leading slashes.
    pub dirs: Vec<String>,
}

/// An image in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its name with registry and tag.
    pub name: String,
    /// The digest of its manifest, by which containerd knows it.
    pub digest: String,
    /// The digest of its configuration, by which Kubernetes knows it.
    pub id: String,
}

/// The architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// The files of an archive; the same input gives the same bytes.
struct Archive<W: Write> {
    tar: tar::Builder<W>,
    /// The blobs that are in it: images of one program share them.
    blobs: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    fn new(out: W) -> Self {
        Self { tar: tar::Builder::new(out), blobs: BTreeSet::new() }
    }

    fn header(size: usize, mode: u32, kind: tar::EntryType) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(mode);
        header.set_entry_type(kind);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header
    }

    fn file(&mut self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let mut header = Self::header(content.len(), mode, tar::EntryType::Regular);
        self.tar.append_data(&mut header, path, content)
    }

    fn dir(&mut self, path: &str, mode: u32) -> io::Result<()> {
        let mut header = Self::header(0, mode, tar::EntryType::Directory);
        self.tar.append_data(&mut header, format!("{path}/"), io::empty())
    }

    fn blob(&mut self, content: &[u8]) -> io::Result<Blob> {
        let digest = digest(content);
        let path = format!("blobs/{}", digest.replacen(':', "/", 1));
        if self.blobs.insert(digest.clone()) {
            self.file(&path, content, 0o644)?;
        }
        Ok(Blob { digest, size: content.len(), path })
    }
}

struct Blob {
    digest: String,
    size: usize,
    path: String,
}

impl Blob {
    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.size})
    }
}

fn layer(image: &Image) -> io::Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::new());
    for dir in &image.dirs {
        archive.dir(dir, if dir == "tmp" { 0o1777 } else { 0o755 })?;
    }
    archive.file(&image.path, image.program, 0o755)?;
    archive.tar.into_inner()
}

fn config(image: &Image, layer: &[u8]) -> Value {
    let mut config = json!({
        "User": image.user,
        "Entrypoint": [format!("/{}", image.path)],
        "Env": ["PATH=/"],
        "WorkingDir": "/",
    });
    if let Some(port) = image.port {
        config["ExposedPorts"] = json!({format!("{port}/tcp"): {}});
    }
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture(),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "coxswain"}],
    })
}

/// Writes images to `out` as a tar archive.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(images: &[Image], out: impl Write) -> io::Result<Vec<Written>> {
    let mut archive = Archive::new(out);
    let (mut manifests, mut docker, mut written) = (Vec::new(), Vec::new(), Vec::new());
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    for image in images {
        let content = layer(image)?;
        let layer = archive.blob(&content)?;
        let config = archive.blob(config(image, &content).to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
        });
        let manifest = archive.blob(manifest.to_string().as_bytes())?;
        let mut entry = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
        let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        entry["annotations"] =
            json!({"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": tag});
        entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
        manifests.push(entry);
        docker.push(json!({"Config": config.path, "RepoTags": [image.name], "Layers": [layer.path]}));
        written.push(Written { name: image.name.clone(), digest: manifest.digest, id: config.digest });
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    archive.file("index.json", index.to_string().as_bytes(), 0o644)?;
    archive.file("manifest.json", Value::from(docker).to_string().as_bytes(), 0o644)?;
    archive.tar.into_inner()?.flush()?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn image(name: &str) -> Image {
        Image {
            name: name.into(),
            program: b"program",
            path: "program".into(),
            user: "1:1".into(),
            port: Some(80),
            dirs: vec!["tmp".into()],
        }
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert!(found.insert(path.clone(), content).is_none(), "{path} is there twice");
        }
        found
    }

    fn parsed(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Value {
        serde_json::from_slice(&files[path]).unwrap()
    }

    #[test]
    fn every_digest_names_a_blob_of_its_content_and_size() {
        let mut archive = Vec::new();
        let written = write(&[image("localhost/a:1"), image("localhost/b:2")], &mut archive);
        let written = written.unwrap();
        let files = files(&archive);
        let blob = |d: &Value| {
            let content = &files[&format!("blobs/{}", d["digest"].as_str().unwrap().replace(':', "/"))];
            assert_eq!(digest(content), d["digest"]);
            assert_eq!(content.len(), d["size"]);
            content.clone()
        };
        let index = parsed(&files, "index.json");
        for (entry, written) in index["manifests"].as_array().unwrap().iter().zip(&written) {
            assert_eq!(entry["annotations"]["io.containerd.image.name"], written.name);
            assert_eq!(entry["digest"], written.digest);
            let manifest: Value = serde_json::from_slice(&blob(entry)).unwrap();
            let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
            assert_eq!(manifest["config"]["digest"], written.id);
            let layer = blob(&manifest["layers"][0]);
            assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
            assert_eq!(self::files(&layer)["program"], b"program");
        }
    }

    #[test]
    fn dockers_manifest_names_files_of_the_archive() {
        let mut archive = Vec::new();
        write(&[image("localhost/a:1")], &mut archive).unwrap();
        let files = files(&archive);
        let manifest = parsed(&files, "manifest.json");
        assert_eq!(manifest[0]["RepoTags"][0], "localhost/a:1");
        for path in [&manifest[0]["Config"], &manifest[0]["Layers"][0]] {
            assert!(files.contains_key(path.as_str().unwrap()), "{path}");
        }
    }

    #[test]
    fn the_same_program_gives_the_same_archive() {
        let bytes = |name| {
            let mut archive = Vec::new();
            let written = write(&[image(name)], &mut archive).unwrap();
            (archive, written)
        };
        assert_eq!(bytes("localhost/a:1"), bytes("localhost/a:1"));
        assert_ne!(bytes("localhost/a:1").0, bytes("localhost/a:2").0);
    }
}
