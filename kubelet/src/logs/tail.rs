//! Where the last lines of a log file begin, found from its end in bounded memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The bytes that are looked at together.
const BLOCK: u64 = 64 * 1024;
/// The beginning of a line, in which its time, stream and tag stand.
const PREFIX: usize = 80;

/// The offset at which the last `lines` lines of output begin. A line of output may stand in the
/// file in several parts.
pub fn start(file: &File, lines: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(length);
    }
    // What stands after the last end of a line is still being written and is no line yet, unless
    // nothing ends it: then it is one of those that are wanted.
    let mut wanted = lines;
    // Where the raw line after the one at hand begins.
    let mut next: Option<u64> = None;
    let mut last = true;
    let mut end = length;
    let mut block = vec![0; BLOCK as usize];
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        let block = &mut block[..(end - begin) as usize];
        file.read_exact_at(block, begin)?;
        for at in (0..block.len()).rev().filter(|at| block[*at] == b'\n') {
            // The raw line that begins behind this newline.
            let line = begin + at as u64 + 1;
            if let Some(found) = step(file, line, next, length, &mut wanted, &mut last)? {
                return Ok(found);
            }
            next = Some(line);
        }
        end = begin;
    }
    Ok(step(file, 0, next, length, &mut wanted, &mut last)?.unwrap_or(0))
}

/// Looks at the raw line at `line`; gives the answer when it is the end of one line too many.
fn step(
    file: &File,
    line: u64,
    next: Option<u64>,
    length: u64,
    wanted: &mut u64,
    last: &mut bool,
) -> io::Result<Option<u64>> {
    let next = next.unwrap_or(length);
    if line >= length {
        return Ok(None);
    }
    // Parts at the very end, whose line is not complete, are a line of their own.
    let counts = std::mem::take(last) || ends_a_line(file, line)?;
    if counts {
        if *wanted == 0 {
            return Ok(Some(next));
        }
        *wanted -= 1;
    }
    Ok(None)
}

fn ends_a_line(file: &File, at: u64) -> io::Result<bool> {
    let mut prefix = [0; PREFIX];
    let read = file.read_at(&mut prefix, at)?;
    let tags = prefix[..read].split(|b| *b == b' ').nth(2).unwrap_or_default();
    Ok(tags.first() != Some(&b'P'))
}
