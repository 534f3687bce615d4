//! Brings the kernel and the names to what the model says, generation by generation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::dns::Names;
use crate::model::ServiceModel;
use crate::net::Cidr;
use crate::nft::{self, Found, NftError};
use crate::rules::{self, Desired, Params, State, UdpFlow};

/// What a sync did.
#[derive(Debug, Default)]
pub struct Synced {
    /// UDP flows that conntrack has to forget.
    pub ended: Vec<UdpFlow>,
    /// The length of the transaction in lines.
    pub lines: usize,
    /// Whether the whole table was compared or replaced.
    pub full: bool,
}

/// The desired state, and whether the kernel is known to be there.
pub struct Proxy {
    params: Params,
    desired: Desired,
    names: Names,
    unpublished: BTreeMap<String, Option<Arc<ServiceModel>>>,
    /// Flows that ended in generations that the kernel did not reach.
    ended: Vec<UdpFlow>,
    in_sync: bool,
}

impl Proxy {
    /// Nothing is desired, and nothing is known of the kernel.
    pub fn new(params: Params, names: Names) -> Self {
        Self {
            params,
            desired: Desired::default(),
            names,
            unpublished: BTreeMap::new(),
            ended: Vec::new(),
            in_sync: false,
        }
    }

    /// The table may have been changed by another hand: the next sync looks at it.
    pub fn distrust(&mut self) {
        self.in_sync = false;
    }

    /// The names that are in step with the kernel.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// All UDP flows that lead to an endpoint now, and the range of ClusterIPs: what conntrack is
    /// compared with after a full sync.
    pub fn udp_flows(&self) -> (BTreeSet<UdpFlow>, Cidr) {
        (self.desired.udp_flows(), self.params.service_range)
    }

    /// Replaces Services, or removes those with `None`, in one transaction; afterwards the names
    /// change, too.
    ///
    /// # Errors
    /// When the kernel could not be brought there. The changes are not lost: the next sync, with or
    /// without more of them, compares the whole table.
    pub async fn sync(
        &mut self,
        changes: BTreeMap<String, Option<ServiceModel>>,
    ) -> Result<Synced, NftError> {
        let mut rules = BTreeMap::new();
        for (key, model) in changes {
            let model = model.map(Arc::new);
            rules.insert(key.clone(), model.as_ref().map(|model| rules::service(model, &self.params)));
            self.unpublished.insert(key, model);
        }
        let (transaction, ended) = self.desired.change(rules);
        self.ended.extend(ended);
        let full = !self.in_sync;
        let script = if full { self.catch_up().await? } else { transaction.script() };
        let lines = script.lines().count();
        if !script.is_empty() {
            self.in_sync = false;
            if let Err(error) = nft::run(&script).await {
                tracing::warn!(%error, "transaction refused: the whole table is replaced");
                nft::run(&nft::replacement(&self.params, &self.desired.from_state(&State::default())))
                    .await?;
            }
        }
        self.in_sync = true;
        let unpublished = std::mem::take(&mut self.unpublished);
        self.names.update(|zone| {
            for (key, model) in unpublished {
                zone.set(&key, model);
            }
            zone.set_ready();
        });
        Ok(Synced { ended: std::mem::take(&mut self.ended), lines, full })
    }

    /// What brings the kernel from wherever it is to the desired state.
    async fn catch_up(&self) -> Result<String, NftError> {
        Ok(match nft::list(&self.params).await? {
            Found::Ours(state) => self.desired.from_state(&state).script(),
            Found::Foreign => nft::replacement(&self.params, &self.desired.from_state(&State::default())),
        })
    }
}
