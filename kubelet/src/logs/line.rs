//! The log format of the container runtime interface: `TIME STREAM TAG TEXT`, a line at a time.

use std::ops::Range;

use jiff::Timestamp;

use super::Options;

/// The longest line that is gathered; what is longer is no line of a runtime (16 KiB and a prefix).
const MAX_LINE: usize = 256 * 1024;

/// One line of a log file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    /// When it was written.
    pub time: Timestamp,
    /// Whether more of the same line of output follows.
    pub partial: bool,
    /// What the container wrote, without the end of the line.
    pub text: &'a [u8],
}

/// Reads a line, without its end; none if it is not of the format.
pub fn parse(raw: &[u8]) -> Option<Line<'_>> {
    let (time, rest) = split(raw)?;
    let (stream, rest) = split(rest)?;
    if stream != b"stdout" && stream != b"stderr" {
        return None;
    }
    // The tags end with the line where it is empty.
    let (tags, text) = split(rest).unwrap_or((rest, &[]));
    let partial = match tags.split(|b| *b == b':').next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(Line { time: std::str::from_utf8(time).ok()?.parse().ok()?, partial, text })
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|b| *b == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// Turns the bytes of log files into what is asked for, however the bytes are cut.
pub struct Lines {
    since: Option<Timestamp>,
    timestamps: bool,
    left: Option<u64>,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// Whether the next text begins a line of output.
    fresh: bool,
}

impl Lines {
    /// Nothing read yet.
    pub fn new(options: &Options) -> Self {
        Self {
            since: options.since,
            timestamps: options.timestamps,
            left: options.limit_bytes,
            begun: Vec::new(),
            fresh: true,
        }
    }

    /// Takes bytes and appends the text that is asked for to `out`; true when the limit is reached.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> bool {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.begun.is_empty() {
                self.line(head, out);
            } else {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend_from_slice(head);
                self.line(&whole, out);
            }
            if self.left == Some(0) {
                return true;
            }
        }
        if self.begun.len() + bytes.len() <= MAX_LINE {
            self.begun.extend_from_slice(bytes);
        }
        self.left == Some(0)
    }

    /// The file ends here: a line without an end is a line too.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let raw = std::mem::take(&mut self.begun);
        if !raw.is_empty() {
            self.line(&raw, out);
        }
    }

    fn line(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        // What is not of the format was not written by the runtime.
        let Some(line) = parse(raw) else { return };
        if self.since.is_some_and(|since| line.time < since) {
            return;
        }
        let start = out.len();
        if self.timestamps && self.fresh {
            out.extend_from_slice(line.time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string().as_bytes());
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.fresh = !line.partial;
        self.limit(start..out.len(), out);
    }

    fn limit(&mut self, added: Range<usize>, out: &mut Vec<u8>) {
        if let Some(left) = &mut self.left {
            let kept = usize::try_from(*left).unwrap_or(usize::MAX).min(added.len());
            out.truncate(added.start + kept);
            *left -= kept as u64;
        }
    }
}
