//! Waits until a log file has grown, was closed or was replaced: inotify, no polling.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::runtime::RuntimeError;

/// The runtime closes a log a moment before it says that the container has ended; so it is asked
/// again after these times. A log that was reopened is closed too, and then nothing comes of it.
const ASK_AGAIN: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_secs(2),
    Duration::from_secs(8),
];

/// The folder of a log file, watched.
pub struct Watch {
    events: AsyncFd<OwnedFd>,
    name: OsString,
    /// How often it was asked whether the container has ended since the file was closed.
    asked: Option<usize>,
    closed: bool,
}

impl Watch {
    /// Watches from now on.
    pub fn new(path: &Path) -> io::Result<Self> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = inotify::init(flags)?;
        let kinds = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&events, folder, kinds)?;
        // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }?;
        Ok(Self { events, name, asked: None, closed: false })
    }

    /// Waits until there is a reason to read on, or to ask whether the container has ended.
    pub async fn changed<F, Fut>(&mut self, ended: F) -> io::Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<bool, RuntimeError>>,
    {
        self.closed = false;
        loop {
            let wait = self.asked.and_then(|asked| ASK_AGAIN.get(asked).copied());
            let event = self.event();
            match wait {
                None => self.note(event.await?),
                Some(wait) => match tokio::time::timeout(wait, event).await {
                    Ok(event) => self.note(event?),
                    Err(_) => {
                        self.asked = self.asked.map(|asked| asked + 1);
                        // An error is for the caller, who asks the same question.
                        self.closed = ended().await.unwrap_or(true);
                        if !self.closed {
                            continue;
                        }
                    }
                },
            }
            return Ok(());
        }
    }

    /// Whether the container may have ended.
    pub fn closed(&self) -> bool {
        self.closed
    }

    fn note(&mut self, event: Event) {
        if event == Event::Closed {
            self.closed = true;
            self.asked = Some(0);
        }
    }

    /// The next thing that happens to the file.
    async fn event(&self) -> io::Result<Event> {
        loop {
            let mut ready = self.events.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(self.events.get_ref(), &mut buffer);
            let mut seen: Option<Event> = None;
            loop {
                match reader.next() {
                    Ok(event) => seen = seen.max(self.meaning(&event)),
                    Err(rustix::io::Errno::WOULDBLOCK) => {
                        ready.clear_ready();
                        break;
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                // What remains is read at the next call.
                if seen.is_some() && reader.is_buffer_empty() {
                    break;
                }
            }
            if let Some(event) = seen {
                return Ok(event);
            }
        }
    }

    fn meaning(&self, event: &inotify::Event<'_>) -> Option<Event> {
        let flags = event.events();
        // After an overflow anything may have happened.
        if flags.intersects(
            inotify::ReadFlags::QUEUE_OVERFLOW
                | inotify::ReadFlags::DELETE_SELF
                | inotify::ReadFlags::IGNORED,
        ) {
            return Some(Event::Closed);
        }
        let ours = event.file_name().is_some_and(|name| name.to_bytes() == self.name.as_bytes());
        let closing = inotify::ReadFlags::CLOSE_WRITE | inotify::ReadFlags::DELETE;
        match ours {
            true if flags.intersects(closing) => Some(Event::Closed),
            true => Some(Event::Grown),
            // A file that was moved away is closed under its new name.
            false if flags.intersects(closing) => Some(Event::Closed),
            false => None,
        }
    }
}

/// What happened, the more important the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Grown,
    Closed,
}
