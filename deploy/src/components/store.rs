//! Where the cluster's state lies: an etcd-lite or an etcd of its own, or an etcd that is there already.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Probe, Spec, Writer, flags, text};
use crate::cluster::Paths;

/// What keeps the cluster's state. Fixed when the cluster is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Store {
    /// etcd-lite, a process of the cluster.
    #[default]
    Lite,
    /// etcd, a process of the cluster.
    Etcd,
    /// An etcd that somebody else runs.
    External {
        /// Its URLs.
        servers: Vec<String>,
        /// The CA of its members.
        ca: Option<PathBuf>,
        /// The certificate that it knows us by.
        cert: Option<PathBuf>,
        /// Its key.
        key: Option<PathBuf>,
    },
}

impl Store {
    /// That of clusters which were made when there was no choice.
    pub(crate) fn of_old() -> Self {
        Self::Etcd
    }

    /// The process that keeps the state, if it is one of the cluster's.
    pub fn process(&self) -> Option<&'static str> {
        match self {
            Self::Lite => Some("etcd-lite"),
            Self::Etcd => Some("etcd"),
            Self::External { .. } => None,
        }
    }

    /// Where that process keeps it.
    pub fn data_dir(&self, paths: &Paths) -> Option<PathBuf> {
        self.process().map(|name| paths.state.join(name))
    }
}

impl Writer<'_> {
    /// The process that keeps the state.
    pub(super) fn store(&self) -> Option<Spec> {
        match self.cluster.store {
            Store::Lite => Some(self.etcd_lite()),
            Store::Etcd => Some(self.etcd()),
            Store::External { .. } => None,
        }
    }

    /// How the API server, and whoever makes a backup, reaches the store.
    pub(super) fn store_flags(&self) -> Vec<String> {
        match &self.cluster.store {
            Store::Lite | Store::Etcd => flags([
                ("etcd-servers", format!("https://127.0.0.1:{}", self.cluster.ports.etcd)),
                ("etcd-cafile", self.pki("etcd-ca.crt")),
                ("etcd-certfile", self.pki("apiserver-etcd-client.crt")),
                ("etcd-keyfile", self.pki("apiserver-etcd-client.key")),
            ]),
            Store::External { servers, ca, cert, key } => {
                let mut all = flags([("etcd-servers", servers.join(","))]);
                for (flag, file) in [("etcd-cafile", ca), ("etcd-certfile", cert), ("etcd-keyfile", key)] {
                    all.extend(file.iter().flat_map(|file| flags([(flag, text(file))])));
                }
                all
            }
        }
    }

    fn store_probe(&self) -> Probe {
        let port = self.cluster.ports.etcd;
        Probe::Https { port, path: "/health", ca: "etcd-ca", client: "apiserver-etcd-client" }
    }

    fn etcd_lite(&self) -> Spec {
        let url = format!("https://127.0.0.1:{}", self.cluster.ports.etcd);
        let args = flags([
            ("name", "default".into()),
            ("data-dir", text(self.paths.state.join("etcd-lite"))),
            ("listen-client-urls", url.clone()),
            ("advertise-client-urls", url),
            ("client-cert-auth", "true".into()),
            ("trusted-ca-file", self.pki("etcd-ca.crt")),
            ("cert-file", self.pki("etcd.crt")),
            ("key-file", self.pki("etcd.key")),
            // Who holds them writes them anew within seconds, and nothing else is ever written on an idle cluster.
            ("heartbeat-prefixes", "/registry/leases/".into()),
        ]);
        self.spec("etcd-lite", self.ours("etcd-lite"), args, &[], self.store_probe())
    }

    fn etcd(&self) -> Spec {
        let (client, peer) = (self.cluster.ports.etcd, self.cluster.ports.etcd_peer);
        let (client, peer) = (format!("https://127.0.0.1:{client}"), format!("https://127.0.0.1:{peer}"));
        let pair = |file: &str| self.pki(file);
        let args = flags([
            ("name", "default".into()),
            ("data-dir", text(self.paths.state.join("etcd"))),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("default={peer}")),
            ("client-cert-auth", "true".into()),
            ("trusted-ca-file", pair("etcd-ca.crt")),
            ("cert-file", pair("etcd.crt")),
            ("key-file", pair("etcd.key")),
            ("peer-client-cert-auth", "true".into()),
            ("peer-trusted-ca-file", pair("etcd-ca.crt")),
            ("peer-cert-file", pair("etcd.crt")),
            ("peer-key-file", pair("etcd.key")),
            // The only member elects itself; a long time-out would only delay that.
            ("heartbeat-interval", "50".into()),
            ("election-timeout", "500".into()),
            ("logger", "zap".into()),
        ]);
        let program = crate::host::find_program("etcd").unwrap_or_else(|| "/usr/bin/etcd".into());
        self.spec("etcd", program, args, &[], self.store_probe())
    }
}
