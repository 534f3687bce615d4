//! The difference between two byte strings of one length, for records that barely change: heartbeats. Pure.
//!
//! Runs of bytes that differ: how many bytes are skipped since the last run, how many follow (both as LEB128), and these.

/// Equal bytes between two runs that are cheaper to repeat than to skip.
const GAP: usize = 2;

fn put_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(runs: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, rest) = runs.split_first()?;
        *runs = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The runs that make `new` of `base`; `None` when their lengths differ, or when the runs are no smaller than half of it.
pub fn diff(base: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    if base.len() != new.len() {
        return None;
    }
    let (mut runs, mut at, mut done) = (Vec::new(), 0, 0);
    while at < new.len() {
        if base[at] == new[at] {
            at += 1;
            continue;
        }
        let (start, mut end, mut look) = (at, at + 1, at + 1);
        while look < new.len() && look - end <= GAP {
            if base[look] != new[look] {
                end = look + 1;
            }
            look += 1;
        }
        put_number(&mut runs, start - done);
        put_number(&mut runs, end - start);
        runs.extend(&new[start..end]);
        (at, done) = (end, end);
        if runs.len() * 2 >= new.len() {
            return None;
        }
    }
    Some(runs)
}

/// Makes of `base` what it became; `None` when the runs do not fit it.
pub fn apply(base: &[u8], mut runs: &[u8]) -> Option<Vec<u8>> {
    let (mut new, mut at) = (base.to_vec(), 0usize);
    while !runs.is_empty() {
        let skipped = take_number(&mut runs)?;
        let length = take_number(&mut runs)?;
        let start = at.checked_add(skipped)?;
        let end = start.checked_add(length)?;
        new.get_mut(start..end)?.copy_from_slice(runs.get(..length)?);
        runs = &runs[length..];
        at = end;
    }
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_changed_is_changed_again(
            base in prop::collection::vec(any::<u8>(), 1..400),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        ) {
            let mut new = base.clone();
            for (at, byte) in &changes {
                new[at.index(base.len())] = *byte;
            }
            match diff(&base, &new) {
                Some(runs) => {
                    prop_assert!(runs.len() * 2 < new.len());
                    prop_assert_eq!(apply(&base, &runs), Some(new));
                }
                None => prop_assert!(changes.len() * 3 * 2 >= base.len(), "a small change is worth it"),
            }
        }

        #[test]
        fn no_runs_make_the_reader_panic(
            base in prop::collection::vec(any::<u8>(), 0..50),
            runs in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let _ = apply(&base, &runs);
        }
    }

    #[test]
    fn a_heartbeat_is_a_few_bytes() {
        let at = |time: &str| {
            format!("{{\"spec\":{{\"renewTime\":\"{time}\",\"holder\":\"{}\"}}}}", "x".repeat(500))
        };
        let (base, new) = (at("2026-11-21T16:19:34.123456Z"), at("2026-11-21T16:21:36.654321Z"));
        assert_eq!(diff(base.as_bytes(), new.as_bytes()).map(|runs| runs.len()), Some(14));
        assert_eq!(diff(b"short", b"longer"), None);
    }
}
