//! Resolves names as a C library does, without one: /etc/hosts, the search list of /etc/resolv.conf, UDP, then TCP.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    A = 1,
    Srv = 33,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    A(Ipv4Addr),
    Srv { priority: u16, weight: u16, port: u16, target: String },
}

/// /etc/resolv.conf.
#[derive(Debug, PartialEq, Eq)]
struct Config {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
}

fn parse_config(text: &str) -> Config {
    let mut config = Config { servers: Vec::new(), search: Vec::new(), ndots: 1 };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                config.servers.extend(words.next().and_then(|ip| ip.parse::<IpAddr>().ok()))
            }
            Some("search") => config.search = words.map(str::to_owned).collect(),
            Some("options") => {
                let ndots = words.filter_map(|o| o.strip_prefix("ndots:")).find_map(|n| n.parse().ok());
                config.ndots = ndots.unwrap_or(config.ndots);
            }
            _ => {}
        }
    }
    config
}

/// The names to try, in order.
fn candidates(name: &str, config: &Config) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let mut names: Vec<_> = config.search.iter().map(|domain| format!("{name}.{domain}")).collect();
    let dots = name.matches('.').count();
    names.insert(if dots >= config.ndots { 0 } else { names.len() }, name.to_owned());
    names
}

/// The addresses of a name.
pub fn addresses(name: &str, timeout: Duration) -> Result<Vec<IpAddr>, String> {
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let named = hosts.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(ip)
    });
    let named: Vec<IpAddr> = named.collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let records = lookup(name, Kind::A, timeout)?;
    let ips: Vec<_> = records
        .iter()
        .filter_map(|r| if let Record::A(ip) = r { Some(IpAddr::V4(*ip)) } else { None })
        .collect();
    if ips.is_empty() { Err(format!("{name}: no such name")) } else { Ok(ips) }
}

/// The records of a name; none if the name or the records do not exist.
pub fn lookup(name: &str, kind: Kind, timeout: Duration) -> Result<Vec<Record>, String> {
    let deadline = Instant::now() + timeout;
    let text = fs::read_to_string("/etc/resolv.conf").map_err(|e| format!("/etc/resolv.conf: {e}"))?;
    let config = parse_config(&text);
    if config.servers.is_empty() {
        return Err("/etc/resolv.conf names no server".into());
    }
    for candidate in candidates(name, &config) {
        let records = ask_any(&config.servers, &candidate, kind, deadline)?;
        if !records.is_empty() {
            return Ok(records);
        }
    }
    Ok(Vec::new())
}

fn ask_any(servers: &[IpAddr], name: &str, kind: Kind, deadline: Instant) -> Result<Vec<Record>, String> {
    let query = query(name, kind)?;
    let mut failure = String::new();
    // Twice around, as datagrams may be lost.
    for server in servers.iter().chain(servers) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match ask(SocketAddr::new(*server, 53), &query, left.min(Duration::from_secs(2))) {
            Ok(answer) => return parse_answer(&answer).map_err(|e| format!("{name} at {server}: {e}")),
            Err(error) => failure = format!("{name} at {server}: {error}"),
        }
    }
    Err(if failure.is_empty() { format!("{name}: no answer in time") } else { failure })
}

fn ask(server: SocketAddr, query: &[u8], timeout: Duration) -> std::io::Result<Vec<u8>> {
    let local: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(local)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(query)?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer)?;
        let answer = &buffer[..length];
        if answer.len() < 12 || answer[..2] != query[..2] {
            continue;
        }
        const TRUNCATED: u8 = 0x02;
        return if answer[2] & TRUNCATED == 0 {
            Ok(answer.to_vec())
        } else {
            ask_tcp(server, query, timeout)
        };
    }
}

fn ask_tcp(server: SocketAddr, query: &[u8], timeout: Duration) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let length = u16::try_from(query.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn query(name: &str, kind: Kind) -> Result<Vec<u8>, String> {
    // Any number that another query of ours is unlikely to have.
    let id = (std::process::id() as u16) ^ (name.len() as u16) << 8;
    let mut bytes = Vec::from(id.to_be_bytes());
    bytes.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..64).contains(n));
        bytes.push(length.ok_or_else(|| format!("{name:?} is no name"))?);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, kind as u8, 0, 1]);
    if bytes.len() > 12 + 255 + 4 { Err(format!("{name:?} is too long")) } else { Ok(bytes) }
}

/// Reads an answer; `None` where it ends too early or loops.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u16(&mut self) -> Option<u16> {
        let pair = self.bytes.get(self.at..self.at + 2)?;
        self.at += 2;
        Some(u16::from_be_bytes([pair[0], pair[1]]))
    }

    fn name(&mut self) -> Option<String> {
        let (mut labels, mut at, mut jumps) = (Vec::new(), self.at, 0);
        loop {
            let length = usize::from(*self.bytes.get(at)?);
            if length >= 0xc0 {
                if jumps == 0 {
                    self.at = at + 2;
                }
                at = (length & 0x3f) << 8 | usize::from(*self.bytes.get(at + 1)?);
                jumps += 1;
                if jumps > 64 {
                    return None;
                }
                continue;
            }
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(self.bytes.get(at..at + length)?).into_owned());
            at += length;
        }
        if jumps == 0 {
            self.at = at;
        }
        Some(labels.join("."))
    }

    fn record(&mut self) -> Option<Option<Record>> {
        self.name()?;
        let kind = self.u16()?;
        self.at += 6;
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        let record = match kind {
            1 => {
                let ip: [u8; 4] = self.bytes.get(self.at..end)?.try_into().ok()?;
                Some(Record::A(ip.into()))
            }
            33 => {
                let (priority, weight, port) = (self.u16()?, self.u16()?, self.u16()?);
                Some(Record::Srv { priority, weight, port, target: self.name()? })
            }
            _ => None,
        };
        self.at = end;
        Some(record)
    }
}

fn parse_answer(bytes: &[u8]) -> Result<Vec<Record>, String> {
    const NO_SUCH_NAME: u8 = 3;
    let code = bytes.get(3).ok_or("a short answer")? & 0x0f;
    match code {
        0 => {}
        NO_SUCH_NAME => return Ok(Vec::new()),
        other => return Err(format!("the server answers with code {other}")),
    }
    let mut reader = Reader { bytes, at: 4 };
    let read = |reader: &mut Reader<'_>| {
        let (questions, answers) = (reader.u16()?, reader.u16()?);
        reader.at += 4;
        for _ in 0..questions {
            reader.name()?;
            reader.at += 4;
        }
        (0..answers).map(|_| reader.record()).collect::<Option<Vec<_>>>()
    };
    let records = read(&mut reader).ok_or("an answer that is cut off")?;
    Ok(records.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        parse_config(
            "nameserver 10.96.0.10\nsearch web.svc.cluster.local svc.cluster.local\noptions ndots:5 x\n",
        )
    }

    #[test]
    fn the_search_list_is_tried_first_for_names_with_few_dots() {
        assert_eq!(config().servers, [IpAddr::from([10, 96, 0, 10])]);
        assert_eq!(
            candidates("web", &config()),
            ["web.web.svc.cluster.local", "web.svc.cluster.local", "web"]
        );
        assert_eq!(candidates("a.b.c.d.e.f", &config())[0], "a.b.c.d.e.f");
        assert_eq!(candidates("web.", &config()), ["web"]);
    }

    #[test]
    fn answers_with_pointers_are_read() {
        let mut bytes = query("_http._tcp.web", Kind::Srv).unwrap();
        bytes[7] = 1;
        bytes.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 5, 0, 9, 0, 1, 0, 2, 0, 80, 1, b'a', 0]);
        let srv = Record::Srv { priority: 1, weight: 2, port: 80, target: "a".into() };
        assert_eq!(parse_answer(&bytes), Ok(vec![srv]));
    }

    #[test]
    fn broken_answers_are_errors() {
        let mut bytes = query("web", Kind::A).unwrap();
        bytes[7] = 1;
        assert!(parse_answer(&bytes).is_err());
        // A name that points at itself.
        bytes.extend([0xc0, 21, 0, 1]);
        assert!(parse_answer(&bytes).is_err());
        assert!(parse_answer(&[0; 3]).is_err());
        assert!(query("a..b", Kind::A).is_err());
        assert!(query(&"a".repeat(64), Kind::A).is_err());
    }
}
