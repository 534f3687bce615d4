//! Resource versions: the store's revision and, behind it, a place among the keys that were written at it.
//!
//! One transaction of the store may write several objects, and gives them all the same revision. A client
//! that resumes a watch from the first of them must still be told of the others, so that each needs a
//! version of its own. The place follows from the key alone: whoever reads the key later, through whichever
//! server, finds the same version, and nothing has to be stored beside the object.

/// Bits of a version that hold the place.
const BITS: u32 = 10;
/// The greatest place.
const LAST: i64 = (1 << BITS) - 1;

/// The version of a key that was written at a revision.
pub fn of(key: &str, revision: i64) -> i64 {
    first(revision) | place(key)
}

/// The version of everything up to and including a revision.
pub fn end(revision: i64) -> i64 {
    first(revision) | LAST
}

/// The version before every key that was written at a revision.
fn first(revision: i64) -> i64 {
    revision.clamp(0, i64::MAX >> BITS) << BITS
}

/// The store's revision of a version.
pub fn revision(version: i64) -> i64 {
    version >> BITS
}

/// Whether a version stands for its whole revision rather than for one key.
pub fn is_whole(version: i64) -> bool {
    version & LAST == LAST
}

/// Whether a key that is written at the revision of a version comes behind it.
pub fn is_behind(key: &str, version: i64) -> bool {
    place(key) > version & LAST
}

/// The version of everything up to a number of revisions before this one, but never before the first.
pub fn back(version: i64, revisions: i64) -> i64 {
    end((revision(version) - revisions).max(1))
}

/// Where a key stands among those that are written at the same revision; two of the same place are never
/// written at once. FNV-1a, folded: it is part of what clients see, so it may never change.
pub fn place(key: &str) -> i64 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let folded = (hash ^ (hash >> 32) ^ (hash >> 16)) & LAST.unsigned_abs();
    i64::try_from(folded).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_stay_what_clients_have_seen() {
        let places = ["/registry/pods/default/web", "/registry/minions/n1", ""].map(place);
        assert_eq!(places, [305, 814, 995]);
    }

    proptest! {
        #[test]
        fn versions_are_ordered_as_revisions_are(a in 0..1_i64 << 40, b in 0..1_i64 << 40, k in ".{0,9}", l in ".{0,9}") {
            prop_assert_eq!(revision(of(&k, a)), a);
            prop_assert_eq!(revision(end(a)), a);
            prop_assert!(of(&k, a) <= end(a));
            if a < b {
                prop_assert!(end(a) < of(&l, b));
            }
        }
    }
}
