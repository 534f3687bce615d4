use super::*;
use crate::fixtures::{node, pod};

struct World {
    queue: Queue,
    profiles: Vec<Profile>,
    now: Instant,
}

fn world() -> World {
    World { queue: Queue::default(), profiles: vec![Profile::default()], now: Instant::now() }
}

impl World {
    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn pop(&mut self) -> Option<Queued> {
        self.queue.pop(self.now)
    }

    fn fail(&mut self, filter: &str) {
        let queued = self.pop().expect("a pod is active");
        let mut refused_by = FilterSet::default();
        refused_by.insert(self.profiles[0].filters.iter().position(|f| f.name() == filter).unwrap());
        self.queue.unschedulable(queued, refused_by, &self.profiles, self.now);
    }
}

#[test]
fn the_higher_priority_goes_first_then_the_older() {
    let mut w = world();
    for (name, priority) in [("a", 0), ("b", 10), ("c", 10), ("d", -5)] {
        w.queue.set(pod(name).priority(priority).info(), 0, false, w.now);
    }
    let order: Vec<_> = std::iter::from_fn(|| w.pop()).map(|q| q.pod.uid.to_string()).collect();
    assert_eq!(order, ["b-uid", "c-uid", "a-uid", "d-uid"]);
}

#[test]
fn only_an_event_that_can_matter_wakes_a_pod() {
    let mut w = world();
    w.queue.set(pod("p").cpu("2").info(), 0, false, w.now);
    w.fail("NodeResourcesFit");
    w.pass(60);
    assert!(w.pop().is_none());
    let (small, big) = (node("n").cpu("1").state(), node("n").cpu("2").state());
    w.queue.event(&Event::NodeAdded(&small), &w.profiles, w.now);
    assert!(w.pop().is_none());
    w.queue.event(&Event::NodeUpdated { old: &small, new: &big }, &w.profiles, w.now);
    assert!(w.pop().is_some());
}

#[test]
fn backoff_doubles_from_one_second_to_ten() {
    let mut w = world();
    w.queue.set(pod("p").cpu("2").info(), 0, false, w.now);
    let big = node("n").state();
    for seconds in [1, 2, 4, 8, 10, 10] {
        w.fail("NodeResourcesFit");
        w.queue.event(&Event::NodeAdded(&big), &w.profiles, w.now);
        assert_eq!(w.queue.deadline(), Some(w.now + Duration::from_secs(seconds)));
        w.pass(seconds - 1);
        assert!(w.pop().is_none());
        assert_eq!(w.queue.depth().backoff, 1);
        w.pass(1);
        w.queue.pass_time(w.now);
    }
}

#[test]
fn after_five_minutes_a_pod_is_tried_anyway() {
    let mut w = world();
    w.queue.set(pod("p").info(), 0, false, w.now);
    w.fail("TaintToleration");
    assert_eq!(w.queue.deadline(), Some(w.now + FLUSH));
    w.pass(299);
    assert!(w.pop().is_none());
    w.pass(1);
    assert!(w.pop().is_some());
}

#[test]
fn gated_pods_wait_until_their_gates_are_gone() {
    let mut w = world();
    let gated = pod("p").set("schedulingGates", serde_json::json!([{"name": "quota"}]));
    w.queue.set(gated.info(), 0, true, w.now);
    w.pass(1000);
    assert!(w.pop().is_none());
    assert_eq!(w.queue.depth(), Depth { gated: 1, ..Depth::default() });
    w.queue.set(pod("p").info(), 0, false, w.now);
    assert!(w.pop().is_some());
    assert_eq!(w.queue.depth(), Depth::default());
}

#[test]
fn a_changed_spec_is_tried_again_and_a_changed_status_is_not() {
    let mut w = world();
    w.queue.set(pod("p").cpu("2").info(), 0, false, w.now);
    w.fail("NodeResourcesFit");
    w.pass(60);
    w.queue.set(pod("p").cpu("2").phase("Pending").info(), 0, false, w.now);
    assert!(w.pop().is_none());
    w.queue.set(pod("p").cpu("1").info(), 0, false, w.now);
    assert!(w.pop().is_some());
}

#[test]
fn a_removed_pod_is_nowhere() {
    let mut w = world();
    for place in 0..4 {
        w.queue.set(pod("p").info(), 0, place == 3, w.now);
        match place {
            1 => w.fail("NodeResourcesFit"),
            2 => {
                let queued = w.pop().unwrap();
                w.queue.retry(queued, w.now);
            }
            _ => {}
        }
        assert!(w.queue.remove("p-uid").is_some());
        assert_eq!(w.queue.depth(), Depth::default());
        assert_eq!(w.queue.deadline(), None);
    }
}
