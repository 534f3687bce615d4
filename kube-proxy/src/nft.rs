//! Speaks with the kernel's nftables through the `nft` program: one process per transaction.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::rules::{self, Params, Slot, State, TABLE, Transaction};

pub mod watch;

/// What went wrong with nft.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is missing or cannot be started.
    #[error("nft cannot be started (is the nftables package installed?)")]
    Start(#[source] std::io::Error),
    /// It refused the commands: another hand changed the table, or a rule is wrong.
    #[error("nft failed: {0}")]
    Refused(String),
    /// Its listing is not understood.
    #[error("nft's listing is not valid JSON")]
    Listing(#[source] serde_json::Error),
}

/// What the table in the kernel is, compared with the base that we would make.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// There is none, or it was made with other settings or by another version.
    Foreign,
    /// Ours; with these Services.
    Ours(State),
}

/// Runs a script as one transaction.
pub async fn run(script: &str) -> Result<(), NftError> {
    nft(&["-f", "-"], script).await.map(drop)
}

/// Looks at the table.
pub async fn list(params: &Params) -> Result<Found, NftError> {
    let text = match nft(&["-j", "list", "table", "ip", TABLE], "").await {
        Ok(text) => text,
        Err(NftError::Refused(why)) if why.contains("No such file or directory") => {
            return Ok(Found::Foreign);
        }
        Err(error) => return Err(error),
    };
    parse(&text, &rules::base::marker(params)).map_err(NftError::Listing)
}

/// The script that replaces whatever table there is by one with these Services, at once.
pub fn replacement(params: &Params, services: &Transaction) -> String {
    rules::base(params) + &services.script()
}

/// Removes the table.
pub async fn remove() -> Result<(), NftError> {
    run(&format!("add table ip {TABLE}\ndelete table ip {TABLE}\n")).await
}

async fn nft(args: &[&str], input: &str) -> Result<Vec<u8>, NftError> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NftError::Start)?;
    let mut stdin = child.stdin.take();
    let feed = async {
        if let Some(stdin) = &mut stdin {
            stdin.write_all(input.as_bytes()).await?;
        }
        drop(stdin.take());
        Ok::<(), std::io::Error>(())
    };
    // nft may stop reading at an error; then its own message says more than a broken pipe.
    let (fed, output) = tokio::join!(feed, child.wait_with_output());
    let output = output.map_err(NftError::Start)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(NftError::Refused(stderr.trim().chars().take(2000).collect()));
    }
    fed.map_err(NftError::Start)?;
    Ok(output.stdout)
}

fn parse(text: &[u8], marker: &str) -> Result<Found, serde_json::Error> {
    let listing: Value = serde_json::from_slice(text)?;
    let mut state = State::default();
    let mut ours = false;
    for item in listing["nftables"].as_array().into_iter().flatten() {
        if let Some(name) = item["chain"]["name"].as_str() {
            ours |= name == marker;
            if ["svc-", "ext-", "ep-"].iter().any(|prefix| name.starts_with(prefix)) {
                state.chains.insert(name.to_owned());
            }
        }
        let object = if item["map"].is_object() { &item["map"] } else { &item["set"] };
        let Some(name) = object["name"].as_str() else { continue };
        if name.starts_with("aff-") {
            state.sets.insert(name.to_owned());
        }
        let Some(slot) = Slot::of_name(name) else { continue };
        for element in object["elem"].as_array().into_iter().flatten() {
            let (key, value) = match element.as_array() {
                Some(pair) if pair.len() == 2 => (&pair[0], verdict(&pair[1])),
                _ => (element, String::new()),
            };
            state.elements.insert((slot, concatenation(key)), value);
        }
    }
    Ok(if ours { Found::Ours(state) } else { Found::Foreign })
}

fn verdict(value: &Value) -> String {
    match value.as_object().and_then(|map| map.iter().next()) {
        Some((verb, arguments)) => match arguments["target"].as_str() {
            Some(target) => format!("{verb} {target}"),
            None => verb.clone(),
        },
        None => value.to_string(),
    }
}

fn concatenation(key: &Value) -> String {
    let part = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match key["concat"].as_array() {
        Some(parts) => parts.iter().map(part).collect::<Vec<_>>().join(" . "),
        None => part(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_back() {
        let listing = r#"{"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "ip", "name": "coxswain", "handle": 1}},
            {"map": {"family": "ip", "name": "services", "table": "coxswain", "handle": 2, "map": "verdict",
                     "type": ["ipv4_addr", "inet_proto", "inet_service"],
                     "elem": [[{"concat": ["10.96.0.1", "tcp", 443]}, {"goto": {"target": "svc-1-a"}}]]}},
            {"map": {"family": "ip", "name": "no-endpoint-nodeports", "table": "coxswain", "handle": 3,
                     "map": "verdict", "elem": [[{"concat": ["udp", 30053]}, {"drop": null}]]}},
            {"set": {"family": "ip", "name": "hairpin", "elem": [{"concat": ["10.0.0.1", "10.0.0.1"]}]}},
            {"set": {"family": "ip", "name": "aff-1-a"}},
            {"chain": {"family": "ip", "name": "svc-1-a"}},
            {"chain": {"family": "ip", "name": "nat-prerouting"}},
            {"chain": {"family": "ip", "name": "base-1"}}]}"#;
        let state = State {
            chains: ["svc-1-a".into()].into(),
            sets: ["aff-1-a".into()].into(),
            elements: [
                ((Slot::Services, "10.96.0.1 . tcp . 443".into()), "goto svc-1-a".into()),
                ((Slot::NoEndpointNodePorts, "udp . 30053".into()), "drop".into()),
                ((Slot::Hairpin, "10.0.0.1 . 10.0.0.1".into()), String::new()),
            ]
            .into(),
        };
        assert_eq!(parse(listing.as_bytes(), "base-1").unwrap(), Found::Ours(state));
        assert_eq!(parse(listing.as_bytes(), "base-2").unwrap(), Found::Foreign);
        assert!(parse(b"{", "base-1").is_err());
    }
}
