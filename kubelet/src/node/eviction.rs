//! Hard eviction thresholds (`--eviction-hard`): where less is left of something, the node is under pressure.
//!
//! See "Node-pressure Eviction" in the Kubernetes documentation. Images are taken to lie on the file system of the
//! kubelet's root, as they do on a machine with one disk.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use api::quantity::Amount;

use super::machine::Pressure;

/// What can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory of the machine, in bytes.
    MemoryAvailable,
    /// Space beneath the kubelet's root, in bytes.
    NodefsAvailable,
    /// Inodes beneath the kubelet's root.
    NodefsInodesFree,
    /// Space for images, in bytes.
    ImagefsAvailable,
    /// Inodes for images.
    ImagefsInodesFree,
    /// Process numbers.
    PidAvailable,
}

const SIGNALS: [(&str, Signal); 6] = [
    ("memory.available", Signal::MemoryAvailable),
    ("nodefs.available", Signal::NodefsAvailable),
    ("nodefs.inodesFree", Signal::NodefsInodesFree),
    ("imagefs.available", Signal::ImagefsAvailable),
    ("imagefs.inodesFree", Signal::ImagefsInodesFree),
    ("pid.available", Signal::PidAvailable),
];

/// How little is too little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// An amount, in the signal's unit.
    Amount(i64),
    /// A share of all there is, in percent.
    Percent(f64),
}

impl Limit {
    /// The limit in the signal's unit, where there are `all`.
    pub fn of(self, all: i64) -> i64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Percent(percent) => (all as f64 * percent / 100.0) as i64,
        }
    }
}

/// A threshold for each signal that has one; a signal without one causes no pressure.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds(BTreeMap<Signal, Limit>);

impl Default for Thresholds {
    /// The documented ones.
    fn default() -> Self {
        Self(BTreeMap::from([
            (Signal::MemoryAvailable, Limit::Amount(100 << 20)),
            (Signal::NodefsAvailable, Limit::Percent(10.0)),
            (Signal::NodefsInodesFree, Limit::Percent(5.0)),
            (Signal::ImagefsAvailable, Limit::Percent(15.0)),
            (Signal::ImagefsInodesFree, Limit::Percent(5.0)),
        ]))
    }
}

/// What is left of something, and how much there is in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stock {
    /// Not used.
    pub left: i64,
    /// Used or not; 0 where it is unknown.
    pub all: i64,
}

/// What was found on the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stocks {
    /// Bytes of memory.
    pub memory: Stock,
    /// Bytes of the file system beneath the kubelet's root.
    pub space: Stock,
    /// Inodes of that file system.
    pub inodes: Stock,
    /// Process numbers.
    pub processes: Stock,
}

impl Thresholds {
    /// The threshold of a signal, in its unit, where there are `all`; 0 if it has none.
    pub fn reserved(&self, signal: Signal, all: i64) -> i64 {
        self.0.get(&signal).map_or(0, |limit| limit.of(all))
    }

    /// What is short, by these thresholds.
    pub fn pressure(&self, found: &Stocks) -> Pressure {
        let short = |signal, stock: Stock| stock.all > 0 && stock.left < self.reserved(signal, stock.all);
        Pressure {
            memory: short(Signal::MemoryAvailable, found.memory),
            disk: short(Signal::NodefsAvailable, found.space)
                || short(Signal::ImagefsAvailable, found.space)
                || short(Signal::NodefsInodesFree, found.inodes)
                || short(Signal::ImagefsInodesFree, found.inodes),
            pid: short(Signal::PidAvailable, found.processes),
        }
    }

    /// Thresholds by signal, as `evictionHard` of a KubeletConfiguration has them.
    ///
    /// # Errors
    /// What is wrong with the first wrong one.
    pub fn from_map<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        given.into_iter().map(|(signal, limit)| threshold(signal, limit)).collect::<Result<_, _>>().map(Self)
    }
}

fn threshold(signal: &str, limit: &str) -> Result<(Signal, Limit), String> {
    let found = SIGNALS.iter().find(|(name, _)| *name == signal);
    let Some((_, known)) = found else { return Err(format!("unsupported eviction signal {signal}")) };
    let parsed = match limit.strip_suffix('%') {
        Some(share) => {
            let share = share.parse::<f64>().map_err(|e| format!("{signal}: {limit:?}: {e}"))?;
            if !(0.0..100.0).contains(&share) {
                return Err(format!("{signal}: {limit:?}: a percentage must be at least 0% and below 100%"));
            }
            Limit::Percent(share)
        }
        None => {
            let amount = Amount::parse(limit).map_err(|e| format!("{signal}: {e}"))?;
            if amount.is_negative() {
                return Err(format!("{signal}: {limit:?}: a threshold must not be negative"));
            }
            Limit::Amount(amount.to_units())
        }
    };
    Ok((*known, parsed))
}

impl FromStr for Thresholds {
    type Err = String;

    /// Parses `signal<limit,…`, where a limit is a quantity or a percentage. Nothing at all is no threshold.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let pairs = parts.map(|part| {
            let pair = part.split_once('<');
            pair.ok_or_else(|| format!("invalid eviction threshold {part:?}: expected <signal><<quantity>"))
        });
        Self::from_map(pairs.collect::<Result<Vec<_>, _>>()?)
    }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (signal, limit)) in self.0.iter().enumerate() {
            let name = SIGNALS.iter().find(|(_, known)| known == signal).map_or("", |(name, _)| name);
            let comma = if place == 0 { "" } else { "," };
            match limit {
                Limit::Amount(amount) => write!(f, "{comma}{name}<{amount}")?,
                Limit::Percent(percent) => write!(f, "{comma}{name}<{percent}%")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read() {
        let read: Thresholds = "memory.available<1Gi,nodefs.available<7.5%".parse().unwrap();
        assert_eq!(read.reserved(Signal::MemoryAvailable, 5), 1 << 30);
        assert_eq!(read.reserved(Signal::NodefsAvailable, 1000), 75);
        assert_eq!(read.reserved(Signal::PidAvailable, 1000), 0);
        assert_eq!(Thresholds::default().to_string().parse(), Ok(Thresholds::default()));
        assert_eq!("".parse(), Ok(Thresholds(BTreeMap::new())));
        for wrong in
            ["nodefs.available", "x<1", "pid.available<-1", "pid.available<x", "memory.available<100%"]
        {
            assert!(wrong.parse::<Thresholds>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_below_its_threshold_is_short() {
        let fine = Stock { left: 50, all: 100 };
        let low = Stock { left: 12, all: 100 };
        let found =
            Stocks { space: low, inodes: fine, processes: Stock { left: 1, all: 100 }, ..Stocks::default() };
        let pressure = |text: &str| text.parse::<Thresholds>().unwrap().pressure(&found);
        assert_eq!(Thresholds::default().pressure(&found), Pressure { disk: true, ..Pressure::default() });
        assert_eq!(pressure("nodefs.available<10%"), Pressure::default());
        assert_eq!(pressure("nodefs.available<0%,imagefs.available<0%"), Pressure::default());
        assert_eq!(pressure("nodefs.inodesFree<60"), Pressure { disk: true, ..Pressure::default() });
        assert_eq!(pressure("pid.available<2"), Pressure { pid: true, ..Pressure::default() });
        // What is unknown is not short.
        assert_eq!(pressure("memory.available<1"), Pressure::default());
    }
}
