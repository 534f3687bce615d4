//! `--config`: a KubeletConfiguration, whose settings hold where no flag says otherwise.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// The settings of upstream's KubeletConfiguration that this kubelet has.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeletConfiguration {
    /// `kubelet.config.k8s.io/v1beta1`.
    pub api_version: String,
    /// `KubeletConfiguration`.
    pub kind: String,
    /// As `--container-runtime-endpoint`.
    pub container_runtime_endpoint: Option<String>,
    /// As `--cluster-dns`.
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Option<Vec<IpAddr>>,
    /// As `--cluster-domain`.
    pub cluster_domain: Option<String>,
    /// As `--cgroup-root`.
    pub cgroup_root: Option<String>,
    /// As `--cgroup-driver`.
    pub cgroup_driver: Option<String>,
    /// As `--cgroups-per-qos`.
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: Option<bool>,
    /// As `--resolv-conf`.
    pub resolv_conf: Option<String>,
    /// As `--healthz-port`.
    pub healthz_port: Option<u16>,
    /// As `--healthz-bind-address`.
    pub healthz_bind_address: Option<IpAddr>,
    /// As `--max-pods`.
    pub max_pods: Option<u32>,
    /// As `--eviction-hard`: limits by signal.
    pub eviction_hard: Option<BTreeMap<String, String>>,
    /// As `--node-status-update-frequency`.
    pub node_status_update_frequency: Option<String>,
    /// As `--pod-log-dir`.
    pub pod_logs_dir: Option<PathBuf>,
    /// As `--container-log-max-size`.
    pub container_log_max_size: Option<String>,
    /// As `--container-log-max-files`.
    pub container_log_max_files: Option<usize>,
    /// As `--register-with-taints`.
    pub register_with_taints: Option<Vec<Taint>>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The file cannot be read.
    #[error("failed to read kubelet config file {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no such document, or has a setting that is not known; the source tells where.
    #[error("failed to load kubelet config file: {0}")]
    Parse(Box<serde_saphyr::Error>),
    /// The file is a document of another kind.
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Kind {
        /// What it says that it is.
        kind: String,
        /// Of which version.
        version: String,
    },
}

impl KubeletConfiguration {
    /// Parses a document.
    pub fn parse(text: &str) -> Result<Self, ConfigFileError> {
        let config: Self = serde_saphyr::from_str(text).map_err(|e| ConfigFileError::Parse(Box::new(e)))?;
        if config.api_version != API_VERSION || config.kind != KIND {
            return Err(ConfigFileError::Kind { kind: config.kind, version: config.api_version });
        }
        Ok(config)
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigFileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_unknown_ones_refused() {
        let head = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n");
        let config = KubeletConfiguration::parse(&format!(
            "{head}clusterDNS: [10.96.0.10]\nmaxPods: 20\ncgroupsPerQOS: false\nregisterWithTaints:\n- {{key: a, effect: NoSchedule}}\n"
        ))
        .unwrap();
        assert_eq!(config.max_pods, Some(20));
        assert_eq!(config.cluster_dns, Some(vec!["10.96.0.10".parse().unwrap()]));
        assert_eq!(config.register_with_taints.map(|t| t.len()), Some(1));
        assert!(KubeletConfiguration::parse(&format!("{head}nonsense: 1\n")).is_err());
        assert!(KubeletConfiguration::parse(&format!("{head}maxPods: many\n")).is_err());
        assert!(KubeletConfiguration::parse("apiVersion: v1\nkind: Pod\n").is_err());
    }
}
