//! A small HTTP client, and a constant load of requests that counts what fails.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::netns::Netns;

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP code.
    pub code: u16,
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// One GET over a connection of its own, from wherever the calling thread is.
pub fn get(addr: SocketAddr, path: &str, timeout: Duration) -> Result<Answer, String> {
    let text = exchange(addr, path, timeout).map_err(|e| e.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("cut off: {text:?}"))?;
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let code =
        first.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or_else(|| format!("no HTTP: {first:?}"))?;
    let header = |line: &str| line.split_once(':').map(|(k, v)| (k.to_lowercase(), v.trim().to_owned()));
    Ok(Answer { code, headers: lines.filter_map(header).collect(), body: body.to_owned() })
}

fn exchange(addr: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// One GET from inside a network namespace.
pub fn get_through(netns: &Netns, addr: SocketAddr, path: &str) -> Result<Answer, String> {
    netns.run(|| get(addr, path, Duration::from_secs(5)))
}

/// What a [`Load`] has seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers with code 200, by the server that gave them (header `x-hostname`, or the body).
    pub served: BTreeMap<String, usize>,
    /// When and why the others failed, in time since the load began.
    pub failed: Vec<(Duration, String)>,
}

impl Tally {
    /// The number of answers with code 200.
    pub fn ok(&self) -> usize {
        self.served.values().sum()
    }
}

/// A constant load of requests, one at a time with a short pause, until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins to request `path` of `addr` from inside a network namespace, 50 times a second at most.
    pub fn start(netns: &Netns, addr: SocketAddr, path: &'static str) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let (stopped, counted, netns) = (stop.clone(), tally.clone(), netns.clone());
        let thread = std::thread::spawn(move || {
            netns.run(|| {
                let began = Instant::now();
                while !stopped.load(Ordering::Relaxed) {
                    let result = get(addr, path, Duration::from_secs(2));
                    count(&mut counted.lock().unwrap_or_else(PoisonError::into_inner), began, result);
                    pause();
                }
            });
        });
        Self { stop, tally, thread: Some(thread) }
    }

    /// What was seen so far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what was seen so far.
    pub fn reset(&self) {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = Tally::default();
    }

    /// Ends the load and returns what it saw.
    pub fn stop(mut self) -> Tally {
        self.end();
        self.tally()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in the thread is a failed assertion there, printed already.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn count(tally: &mut Tally, began: Instant, result: Result<Answer, String>) {
    match result {
        Ok(answer) if answer.code == 200 => {
            let server = answer.headers.get("x-hostname").cloned().unwrap_or(answer.body);
            *tally.served.entry(server).or_default() += 1;
        }
        Ok(answer) => tally.failed.push((began.elapsed(), format!("HTTP {}", answer.code))),
        Err(error) => tally.failed.push((began.elapsed(), error)),
    }
}

#[allow(clippy::disallowed_methods, reason = "the pause is what bounds the load")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
