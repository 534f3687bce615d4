//! The dummy interface that carries the cluster's DNS address on this node.

use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressScope};
use rtnetlink::{Handle, LinkBridge, LinkDummy, LinkUnspec};

/// The interface's name.
pub const NAME: &str = "coxswain-dns";
const ENODEV: i32 = -19;
const EOPNOTSUPP: i32 = -95;

/// What the kernel answered.
#[derive(Debug, thiserror::Error)]
#[error("interface {NAME}: {step}")]
pub struct LinkError {
    step: &'static str,
    #[source]
    source: rtnetlink::Error,
}

fn at(step: &'static str) -> impl Fn(rtnetlink::Error) -> LinkError {
    move |source| LinkError { step, source }
}

/// The interface's number, if it exists.
pub async fn find(handle: &Handle) -> Result<Option<u32>, LinkError> {
    let mut links = std::pin::pin!(handle.link().get().match_name(NAME).execute());
    match links.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == ENODEV => Ok(None),
        Err(source) => Err(at("cannot be looked up")(source)),
    }
}

/// Makes the interface and gives it exactly this address, or none; one that exists is kept.
/// The address has host scope, so that it is never chosen as the source of other traffic.
pub async fn ensure(handle: &Handle, address: Option<Ipv4Addr>) -> Result<u32, LinkError> {
    let index = match find(handle).await? {
        Some(index) => index,
        None => {
            make(handle).await.map_err(at("cannot be made"))?;
            find(handle).await?.ok_or_else(|| at("vanished")(rtnetlink::Error::RequestFailed))?
        }
    };
    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await.map_err(at("cannot be set up"))?;
    let mut present = false;
    let mut addresses = std::pin::pin!(handle.address().get().set_link_index_filter(index).execute());
    while let Some(message) = addresses.try_next().await.map_err(at("its addresses cannot be listed"))? {
        let held = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
            _ => None,
        });
        let Some(held) = held else { continue };
        if Some(held) == address {
            present = true;
        } else {
            handle.address().del(message).execute().await.map_err(at("an old address cannot be removed"))?;
        }
    }
    if let Some(address) = address.filter(|_| !present) {
        let mut request = handle.address().add(index, address.into(), 32);
        request.message_mut().header.scope = AddressScope::Host;
        request.execute().await.map_err(at("the address cannot be added"))?;
    }
    Ok(index)
}

/// A kernel without dummy interfaces gets a bridge without ports, which is as good.
async fn make(handle: &Handle) -> Result<(), rtnetlink::Error> {
    match handle.link().add(LinkDummy::new(NAME).build()).execute().await {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == EOPNOTSUPP => {
            handle.link().add(LinkBridge::new(NAME).build()).execute().await
        }
        made => made,
    }
}

/// Removes the interface.
pub async fn remove(handle: &Handle) -> Result<(), LinkError> {
    match find(handle).await? {
        Some(index) => handle.link().del(index).execute().await.map_err(at("cannot be removed")),
        None => Ok(()),
    }
}
