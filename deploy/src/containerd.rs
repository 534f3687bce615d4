//! What a node's containerd is told: its settings and the pod network.

use crate::cluster::{Cluster, Paths};
use crate::images;

/// The template of the pod network, rendered by containerd when the kubelet tells it the node's range.
///
/// Pods hang on a routed link each, so that all they say passes the node's rules, also to a pod on the same node. What
/// a reboot loses lies in /run: which addresses are taken.
pub fn network_template() -> String {
    let config = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni/networks",
                "ranges": [[{"subnet": "{{.PodCIDR}}"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    format!("{config:#}\n")
}

/// containerd's settings for a node. Paths are those that the node sees.
pub fn settings(cluster: &Cluster, paths: &Paths, node: &str) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let path = |path: std::path::PathBuf| quote(&path.to_string_lossy());
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
address = {socket}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = {pause}
# Without CAP_SYS_RESOURCE a sandbox cannot be given a lower score than its parent has.
restrict_oom_score_adj = true
disable_apparmor = true
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
tolerate_missing_hugetlb_controller = true
image_pull_progress_timeout = "1m"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = {snapshotter}
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {cni}
conf_dir = "/run/cni/net.d"
conf_template = {template}
max_conf_num = 1
"#,
        socket = path(paths.containerd_socket(node)),
        pause = quote(images::PAUSE),
        snapshotter = quote(&cluster.snapshotter),
        cni = path(cluster.cni_bin_dir.clone()),
        template = path(paths.node(node).join("network.json.tmpl")),
    )
}
