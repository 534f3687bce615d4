//! Tells when somebody removes our table: the kernel announces it, so nothing polls.

use std::io;

use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use crate::rules::TABLE;

const NETLINK_NETFILTER: isize = 12;
const NFNLGRP_NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_DELTABLE: u16 = 2;
const NFTA_TABLE_NAME: u16 = 1;
/// Netlink's header and netfilter's own.
const HEADERS: usize = 16 + 4;

/// A subscription to the kernel's announcements.
pub struct TableWatch(TokioSocket);

impl TableWatch {
    /// Subscribes.
    pub fn new() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
        Ok(Self(socket))
    }

    /// Waits until the table may have been removed: it was, or announcements were lost.
    ///
    /// # Errors
    /// When the socket is broken for good.
    pub async fn removed(&mut self) -> io::Result<()> {
        const ENOBUFS: i32 = 105;
        loop {
            match self.0.recv_from_full().await {
                Ok((data, _)) if announces_removal(&data) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether one of the messages in a datagram says that our table is gone.
fn announces_removal(mut data: &[u8]) -> bool {
    while let Some(message) = message(data) {
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        if kind == (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_DELTABLE
            && table_name(&message[HEADERS..]) == Some(TABLE)
        {
            return true;
        }
        data = &data[message.len().next_multiple_of(4).min(data.len())..];
    }
    false
}

fn message(data: &[u8]) -> Option<&[u8]> {
    let length = u32::from_ne_bytes(data.get(..4)?.try_into().ok()?) as usize;
    data.get(..length).filter(|message| message.len() >= HEADERS)
}

fn table_name(mut attributes: &[u8]) -> Option<&str> {
    loop {
        let header = attributes.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([header[2], header[3]]) == NFTA_TABLE_NAME {
            return std::str::from_utf8(value).ok().map(|name| name.trim_end_matches('\0'));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn deltable(name: &str) -> Vec<u8> {
        let mut value = name.as_bytes().to_vec();
        value.push(0);
        let mut attribute = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        attribute.extend(NFTA_TABLE_NAME.to_ne_bytes());
        attribute.extend(&value);
        let mut message = u32::try_from(HEADERS + attribute.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_DELTABLE).to_ne_bytes());
        message.resize(HEADERS, 0);
        message.extend(attribute);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn the_removal_of_our_table_alone_is_announced() {
        assert!(announces_removal(&deltable("coxswain")));
        assert!(!announces_removal(&deltable("other")));
        assert!(announces_removal(&[deltable("other"), deltable("coxswain")].concat()));
        assert!(!announces_removal(&[]));
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_without_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            announces_removal(&data);
        }
    }
}
