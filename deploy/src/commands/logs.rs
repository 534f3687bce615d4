//! `coxswain logs`: prints a component's log and follows it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Target;
use crate::components::{find, specs};

/// Which log, and how much of it.
#[derive(clap::Args, Clone, Debug)]
pub struct LogsArgs {
    /// The component, such as apiserver, kubelet@node-2, node-2/containerd or supervisor.
    pub component: String,
    /// Go on with what is written later.
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with so many of the last lines.
    #[arg(long, value_name = "LINES")]
    pub tail: Option<usize>,
}

/// Prints it.
///
/// # Errors
/// When the component is unknown or its log cannot be read.
pub async fn run(target: &Target, args: &LogsArgs) -> anyhow::Result<()> {
    let cluster = target.cluster()?;
    let mut ids: Vec<_> = specs(&cluster, &target.paths).into_iter().map(|spec| spec.id).collect();
    ids.push("supervisor".into());
    let id = find(&ids, &args.component).map_err(anyhow::Error::msg)?;
    let path = target.paths.log(id);
    let mut file = File::open(&path).with_context(|| format!("could not read {}", path.display()))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let begin = args.tail.map_or(0, |lines| start_of_last(&text, lines));
    print(&text[begin..])?;
    if args.follow { follow(&path, file).await } else { Ok(()) }
}

/// A reader that goes away has seen enough.
fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}

/// Where the last so many lines begin.
fn start_of_last(text: &[u8], lines: usize) -> usize {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    if lines == 0 {
        return text.len();
    }
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    ends.into_iter().nth(lines - 1).unwrap_or(0)
}

async fn follow(path: &Path, mut file: File) -> anyhow::Result<()> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    inotify::add_watch(&watch, dir, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
    // SAFETY: the descriptor is owned and is not closed before it is dropped.
    let watch = unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE)? };
    let mut events = [0; 4096];
    loop {
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        print(&text)?;
        // A new file took the place of one that grew too large.
        if let Ok(now) = std::fs::metadata(path)
            && now.ino() != file.metadata()?.ino()
        {
            file = File::open(path)?;
            file.seek(SeekFrom::Start(0))?;
            continue;
        }
        let mut ready = watch.readable().await?;
        match rustix::io::read(watch.get_ref(), &mut events) {
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_begin_after_the_end_of_the_one_before() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc\n", 9, "a\nb\nc\n"),
            ("a\nb\nc\n", 0, ""),
            ("a\nb", 1, "b"),
            ("", 3, ""),
        ] {
            assert_eq!(&text[start_of_last(text.as_bytes(), lines)..], expected, "{text:?} {lines}");
        }
    }
}
