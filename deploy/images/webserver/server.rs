//! Serves the files of a directory over HTTP/1.1, a thread per connection.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::signals;

/// The longest request line with its headers, in bytes.
const HEAD_LIMIT: u64 = 16 << 10;
/// How long a client may take to send a request that it has begun, or to read an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a client may leave a connection idle.
const IDLE: Duration = Duration::from_secs(3600);
/// The most connections at a time; the next ones wait in the kernel.
const CONNECTIONS: usize = 256;

struct State {
    root: PathBuf,
    host: String,
    /// Set when the server is about to end: connections are closed after the answer.
    leaving: AtomicBool,
    active: AtomicUsize,
    room: (Mutex<()>, Condvar),
}

/// Serves until SIGTERM or SIGINT, then goes on for `drain`, so that those who have not heard yet that this server
/// goes still get an answer.
pub fn serve(port: u16, root: PathBuf, drain: Duration) -> io::Result<()> {
    let set = signals::block();
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    println!("{host} serves {} on port {}", root.display(), listener.local_addr()?.port());
    let state = Arc::new(State {
        root,
        host,
        leaving: AtomicBool::new(false),
        active: AtomicUsize::new(0),
        room: (Mutex::new(()), Condvar::new()),
    });
    let accepting = state.clone();
    thread::spawn(move || accept(&listener, &accepting));
    signals::wait_for_termination(&set);
    println!("leaving");
    state.leaving.store(true, Ordering::SeqCst);
    // Ends early once a second signal says so.
    let waiting = thread::spawn(move || signals::wait_for_termination(&set));
    let end = std::time::Instant::now() + drain;
    while std::time::Instant::now() < end && !waiting.is_finished() {
        thread::park_timeout(Duration::from_millis(50).min(drain));
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    while state.active.load(Ordering::SeqCst) > 0
        && std::time::Instant::now() < deadline
        && !waiting.is_finished()
    {
        thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let mut guard = state.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        while state.active.load(Ordering::SeqCst) >= CONNECTIONS {
            guard = state.room.1.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        state.active.fetch_add(1, Ordering::SeqCst);
        drop(guard);
        let serving = state.clone();
        let work = move || {
            // A client that goes away in the middle is not our trouble.
            let _ = converse(&stream, &serving);
            serving.active.fetch_sub(1, Ordering::SeqCst);
            serving.room.1.notify_one();
        };
        if thread::Builder::new().stack_size(128 << 10).spawn(work).is_err() {
            state.active.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn converse(stream: &TcpStream, state: &State) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while wait_for_request(&mut reader, state)? {
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = read_request(&mut reader)?;
        let close = request.close || state.leaving.load(Ordering::SeqCst);
        let answer = answer(state, &request);
        write_answer(stream, state, &request, &answer, close)?;
        if close {
            break;
        }
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    }
    Ok(())
}

/// Whether another request begins before the client or the server ends the connection.
fn wait_for_request(reader: &mut BufReader<&TcpStream>, state: &State) -> io::Result<bool> {
    let begin = std::time::Instant::now();
    loop {
        match reader.fill_buf() {
            Ok(bytes) => return Ok(!bytes.is_empty()),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                if state.leaving.load(Ordering::SeqCst) || begin.elapsed() > IDLE {
                    return Ok(false);
                }
            }
            Err(e) => return Err(e),
        }
    }
}

/// What of a request matters.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: String,
    path: String,
    close: bool,
    /// Nothing that can be understood.
    bad: bool,
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Request> {
    let mut head = reader.take(HEAD_LIMIT);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target, version) = (words.next(), words.next(), words.next());
    let mut request = Request {
        method: method.unwrap_or_default().to_owned(),
        path: target.unwrap_or_default().split(['?', '#']).next().unwrap_or_default().to_owned(),
        close: version != Some("HTTP/1.1"),
        bad: version.is_none() || words.next().is_some(),
    };
    let mut length = 0;
    loop {
        line.clear();
        head.read_line(&mut line)?;
        if !line.ends_with('\n') {
            request.bad = true;
            break;
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "connection" => request.close |= value.to_ascii_lowercase().contains("close"),
            "content-length" => length = value.trim().parse().unwrap_or(u64::MAX),
            "transfer-encoding" => length = u64::MAX,
            _ => {}
        }
    }
    // A body is not read, so what follows it cannot be understood.
    request.close |= request.bad || length > 0;
    Ok(request)
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: Vec<u8>,
}

fn answer(state: &State, request: &Request) -> Answer {
    let text = |status, body: &str| Answer { status, kind: "text/plain; charset=utf-8", body: body.into() };
    if request.bad {
        return text("400 Bad Request", "bad request\n");
    }
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return text("405 Method Not Allowed", "only GET and HEAD\n");
    }
    match request.path.as_str() {
        "/healthz" => return text("200 OK", "ok\n"),
        "/hostname" => return text("200 OK", &format!("{}\n", state.host)),
        _ => {}
    }
    let Some(file) = file_of(&request.path) else { return text("400 Bad Request", "bad path\n") };
    let mut file = state.root.join(file);
    if file.is_dir() {
        file.push("index.html");
    }
    match fs::read(&file) {
        Ok(body) => Answer { status: "200 OK", kind: kind_of(&file), body },
        Err(e) if e.kind() == ErrorKind::PermissionDenied => text("403 Forbidden", "forbidden\n"),
        Err(_) => text("404 Not Found", "not found\n"),
    }
}

/// The file below the root that a path names; none for a path that leads out of it.
fn file_of(path: &str) -> Option<PathBuf> {
    let path = Path::new(path.strip_prefix('/')?);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !path.as_os_str().as_encoded_bytes().contains(&0)).then(|| path.to_owned())
}

fn kind_of(file: &Path) -> &'static str {
    match file.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("txt") | None => "text/plain; charset=utf-8",
        Some(_) => "application/octet-stream",
    }
}

fn write_answer(
    mut stream: &TcpStream,
    state: &State,
    request: &Request,
    answer: &Answer,
    close: bool,
) -> io::Result<()> {
    let Answer { status, kind, body } = answer;
    let (length, host) = (body.len(), &state.host);
    let connection = if close { "close" } else { "keep-alive" };
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nX-Hostname: {host}\r\n\
         Connection: {connection}\r\n\r\n"
    )
    .into_bytes();
    if request.method != "HEAD" {
        bytes.extend_from_slice(body);
    }
    stream.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_files_below_the_root_only() {
        for (path, file) in [("/", Some("")), ("/a/b.txt", Some("a/b.txt")), ("/a//b", Some("a/b"))] {
            assert_eq!(file_of(path), file.map(PathBuf::from), "{path}");
        }
        for path in ["/../etc/passwd", "/a/../../b", "//etc/passwd", "a", "", "/a\0b"] {
            assert_eq!(file_of(path), None, "{path}");
        }
    }

    #[track_caller]
    fn check(text: &str, path: &str, close: bool, bad: bool) {
        let request = read_request(&mut text.as_bytes()).unwrap();
        assert_eq!((request.path.as_str(), request.close, request.bad), (path, close, bad), "{text:?}");
    }

    #[test]
    fn requests_are_read_to_their_end() {
        check("GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n", "/a", false, false);
        check("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", "/", true, false);
        check("GET / HTTP/1.0\r\n\r\n", "/", true, false);
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "/", true, false);
        check("nonsense\r\n\r\n", "", true, true);
        check("GET / HTTP/1.1\r\nHost: x", "/", true, true);
        check(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(20_000)), "/", true, true);
    }
}
