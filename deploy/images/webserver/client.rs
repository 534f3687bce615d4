//! The client: fetches a page and resolves a name, and prints what came back.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::dns::{self, Kind, Record};

/// The parts of an http URL.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    host: &'a str,
    port: u16,
    path: &'a str,
}

fn parse(url: &str) -> Result<Url<'_>, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url:?} does not begin with http://"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| format!("{port:?} is no port"))?),
        None => (authority, 80),
    };
    if host.is_empty() {
        return Err(format!("{url:?} names no host"));
    }
    Ok(Url { host, port, path: if path.is_empty() { "/" } else { path } })
}

/// Prints the body of a page. An answer other than 2xx is an error.
pub fn fetch(url: &str, timeout: Duration) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let Url { host, port, path } = parse(url)?;
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => dns::addresses(host, left())?,
    };
    let mut failure = format!("{host} has no address");
    for ip in addresses {
        let address = SocketAddr::new(ip, port);
        match TcpStream::connect_timeout(&address, left()) {
            Ok(stream) => return exchange(stream, host, path, left()).map_err(|e| format!("{url}: {e}")),
            Err(error) => failure = format!("{address}: {error}"),
        }
    }
    Err(failure)
}

fn exchange(mut stream: TcpStream, host: &str, path: &str, timeout: Duration) -> Result<(), String> {
    let run = || -> std::io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(16 << 20).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = run().map_err(|e| e.to_string())?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("no HTTP answer")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
    std::io::stdout().write_all(&answer[end + 4..]).map_err(|e| e.to_string())?;
    if status.starts_with('2') { Ok(()) } else { Err(format!("status {status}")) }
}

/// Prints the records of a name, a line each. A name that has none is an error.
pub fn resolve(name: &str, kind: &str, timeout: Duration) -> Result<(), String> {
    let kind = match kind.to_ascii_uppercase().as_str() {
        "A" => Kind::A,
        "SRV" => Kind::Srv,
        other => return Err(format!("--type {other:?} is not known: use A or SRV")),
    };
    let records = dns::lookup(name, kind, timeout)?;
    for record in &records {
        match record {
            Record::A(ip) => println!("{ip}"),
            Record::Srv { priority, weight, port, target } => println!("{priority} {weight} {port} {target}"),
        }
    }
    if records.is_empty() { Err(format!("{name}: no such record")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_parse() {
        let url = |host, port, path| Url { host, port, path };
        assert_eq!(parse("http://web"), Ok(url("web", 80, "/")));
        assert_eq!(parse("http://10.0.0.1:8080/a?b"), Ok(url("10.0.0.1", 8080, "/a?b")));
        for bad in ["web", "https://web", "http://", "http://web:x/", "http://:80/"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
