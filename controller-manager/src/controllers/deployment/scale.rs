//! A change of the Deployment's size: how it is spread over ReplicaSets while a rollout is under way.

use super::model::{Model, Set};
use super::revision::{DESIRED_REPLICAS, MAX_REPLICAS};

/// Whether the Deployment's size was changed since its ReplicaSets were last scaled.
pub fn is_scaling(model: &Model<'_>) -> bool {
    let desired = model.replicas();
    let differs = |set: &Set| set.number(DESIRED_REPLICAS).is_some_and(|noted| noted != desired);
    model.all().any(|set| set.replicas > 0 && differs(set))
}

/// Brings the ReplicaSets to the Deployment's size without moving its rollout on: the only active
/// one takes it all; a finished rollout empties the old ones; else it is spread proportionally.
pub fn scale(model: &mut Model<'_>) {
    let desired = model.replicas();
    let max = desired.saturating_add(model.fenceposts().surge);
    if let Some(set) = active_or_latest(model) {
        if set.replicas != desired {
            Model::resize(set, desired, desired, max);
        }
        return;
    }
    if model.new.as_ref().is_some_and(|new| is_saturated(new, desired)) {
        for set in model.old.iter_mut().filter(|s| s.replicas > 0) {
            Model::resize(set, 0, desired, max);
        }
        return;
    }
    if model.is_rolling() {
        spread(model, desired, max);
    }
}

/// The only ReplicaSet with pods; when none has any, the new one or else the latest. `None` when
/// several have pods.
fn active_or_latest<'m>(model: &'m mut Model<'_>) -> Option<&'m mut Set> {
    let active = model.all().filter(|s| s.replicas > 0).count();
    match active {
        0 if model.new.is_some() => model.new.as_mut(),
        0 => model.old.last_mut(),
        1 => model.all_mut().find(|s| s.replicas > 0),
        _ => None,
    }
}

fn is_saturated(new: &Set, desired: i32) -> bool {
    new.replicas == desired && new.number(DESIRED_REPLICAS) == Some(desired) && new.available() == desired
}

/// Spreads the difference over the active ReplicaSets in proportion to their sizes; what rounding
/// leaves goes to the largest.
fn spread(model: &mut Model<'_>, desired: i32, max: i32) {
    let allowed = if desired > 0 { max } else { 0 };
    let to_add = allowed - model.total(|s| s.replicas);
    let former_size = model.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let mut active: Vec<&mut Set> = model.all_mut().filter(|s| s.replicas > 0).collect();
    active.sort_by(|a, b| a.age().cmp(&b.age()));
    if to_add > 0 {
        active.reverse();
    }
    // Stable: among equally large ones the newest grows and the oldest shrinks first.
    active.sort_by_key(|s| std::cmp::Reverse(s.replicas));

    let mut added = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for set in &active {
        let share = proportion(set, desired, max, former_size, to_add, added);
        added += share;
        sizes.push(set.replicas + share);
    }
    for (i, (set, mut size)) in active.into_iter().zip(sizes).enumerate() {
        if i == 0 {
            size = (size + to_add - added).max(0);
        }
        Model::resize(set, size, desired, max);
    }
}

/// By how much one ReplicaSet changes, within what is left of the difference.
fn proportion(set: &Set, desired: i32, max: i32, former_size: i32, to_add: i32, added: i32) -> i32 {
    if to_add == 0 || to_add == added {
        return 0;
    }
    let left = to_add - added;
    let share = fraction(set, desired, max, former_size);
    if to_add > 0 { share.clamp(0, left.max(0)) } else { share.clamp(left.min(0), 0) }
}

fn fraction(set: &Set, desired: i32, max: i32, former_size: i32) -> i32 {
    if desired == 0 {
        return -set.replicas;
    }
    let before = set.number(MAX_REPLICAS).filter(|n| *n > 0).unwrap_or(former_size);
    if before <= 0 {
        return 0;
    }
    let size = f64::from(set.replicas) * f64::from(max) / f64::from(before);
    size.round() as i32 - set.replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, deployment, replica_set};

    /// Sizes are (replicas) of old sets from oldest to newest and then the new one.
    #[track_caller]
    fn check(from: i32, to: i32, sizes: &[i32], expected: &[i32]) {
        let deployment = deployment(to).image("new").build();
        let max = from
            + Model::new(
                &crate::fixtures::deployment(from).build(),
                deployment.spec.as_ref().unwrap(),
                &[],
                at(0),
            )
            .fenceposts_for(from);
        let sets: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(i, size)| {
                let image = if i + 1 == sizes.len() { "new".into() } else { format!("old{i}") };
                let set = replica_set(&format!("rs{i}"), *size).image(&image).created(i as i64);
                set.sized(from, max).available(*size).arc()
            })
            .collect();
        let mut model = Model::new(&deployment, deployment.spec.as_ref().unwrap(), &sets, at(100));
        scale(&mut model);
        let found: Vec<_> = model.all().map(|s| s.replicas).collect();
        assert_eq!(found, expected, "{from} to {to} with {sizes:?}");
    }

    impl Model<'_> {
        fn fenceposts_for(&self, replicas: i32) -> i32 {
            let mut spec = self.spec.clone();
            spec.replicas = Some(replicas);
            super::super::rolling::Fenceposts::of(&spec).surge
        }
    }

    #[test]
    fn one_active_set_takes_it_all() {
        check(3, 5, &[3], &[5]);
        check(3, 5, &[0, 3], &[0, 5]);
        check(3, 5, &[3, 0], &[5, 0]);
        check(3, 0, &[0, 3], &[0, 0]);
        check(0, 3, &[0, 0], &[0, 3]);
    }

    #[test]
    fn sizes_in_a_rollout_are_scaled_proportionally() {
        // 10 with surge 3: 8 old and 5 new; 20 with surge 5.
        check(10, 20, &[8, 5], &[15, 10]);
        check(10, 5, &[8, 5], &[4, 3]);
        check(10, 0, &[8, 5], &[0, 0]);
        check(10, 30, &[5, 5, 3], &[15, 15, 8]);
    }

    #[test]
    fn a_finished_rollout_empties_the_old_sets() {
        let deployment = deployment(3).image("new").build();
        let old = replica_set("old", 2).image("old").sized(3, 4).arc();
        let new = replica_set("new", 3).image("new").created(1).sized(3, 4).available(3).arc();
        let mut model = Model::new(&deployment, deployment.spec.as_ref().unwrap(), &[old, new], at(9));
        scale(&mut model);
        assert_eq!(model.all().map(|s| s.replicas).collect::<Vec<_>>(), [0, 3]);
    }

    proptest::proptest! {
        #[test]
        fn the_sum_is_exactly_what_is_allowed(to in 0..200i32, a in 1..100i32, b in 1..100i32) {
            let deployment = deployment(to).image("new").build();
            let sets = [
                replica_set("a", a).image("old").sized(a, a + b).arc(),
                replica_set("b", b).image("new").created(1).sized(a, a + b).arc(),
            ];
            let mut model = Model::new(&deployment, deployment.spec.as_ref().unwrap(), &sets, at(9));
            let allowed = if to > 0 { to + model.fenceposts().surge } else { 0 };
            scale(&mut model);
            proptest::prop_assert_eq!(model.total(|s| s.replicas), allowed);
            proptest::prop_assert!(model.all().all(|s| s.replicas >= 0));
        }
    }
}
