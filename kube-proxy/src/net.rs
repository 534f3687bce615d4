//! IPv4 ranges, as flags and Nodes write them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 range such as `10.96.0.0/12`; the host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    base: Ipv4Addr,
    prefix: u8,
}

/// Text that is no IPv4 range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0:?}")]
pub struct CidrError(pub String);

impl Cidr {
    /// The range that holds `address` and has a prefix of `prefix` bits (at most 32).
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { base: Ipv4Addr::from(u32::from(address) & mask(prefix)), prefix }
    }

    /// The first address.
    pub fn base(&self) -> Ipv4Addr {
        self.base
    }

    /// The number of fixed bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether an address lies within.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == u32::from(self.base)
    }

    /// The IPv4 ranges of a comma-separated list; IPv6 ones are passed over.
    pub fn list(text: &str) -> Result<Vec<Self>, CidrError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty() && !part.contains(':'));
        parts.map(str::parse).collect()
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let prefix: u8 = prefix.parse().ok().filter(|p| *p <= 32).ok_or_else(error)?;
        Ok(Self::new(address.parse().map_err(|_| error())?, prefix))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_parse_and_contain() {
        let range: Cidr = "10.96.3.4/12".parse().unwrap();
        assert_eq!(range.to_string(), "10.96.0.0/12");
        assert!(range.contains("10.111.255.255".parse().unwrap()));
        assert!(!range.contains("10.112.0.0".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains(Ipv4Addr::LOCALHOST));
        assert_eq!(Cidr::list("fd00::/8, 10.244.0.0/16").unwrap(), ["10.244.0.0/16".parse().unwrap()]);
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "a/8", "10.0.0.0/-1"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
