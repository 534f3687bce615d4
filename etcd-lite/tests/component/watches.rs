//! Watches: from any revision, with filters, at any pace, many on one stream.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{
    CompactionOptions, EventType, GetOptions, PutOptions, Txn, TxnOp, WatchFilterType, WatchOptions,
    WatchStream,
};

use crate::support::{Server, block_on, soon};

/// The next events: key, value before and now, revision.
async fn events(stream: &mut WatchStream, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let response = soon("an event", stream.message()).await.unwrap().unwrap();
        assert!(!response.canceled(), "{response:?}");
        for event in response.events() {
            let kv = event.kv().unwrap();
            let kind = if event.event_type() == EventType::Put { "put" } else { "delete" };
            let mut text = format!("{kind} {}@{}", kv.key_str().unwrap(), kv.mod_revision());
            if let Some(before) = event.prev_kv() {
                text += &format!(" was {}", before.value_str().unwrap());
            }
            seen.push(text);
        }
    }
    seen
}

#[test]
fn a_watch_begins_where_it_is_told_and_hears_what_it_asked_for() {
    block_on(async {
        let server = Server::start().await;
        let mut client = server.client().await;
        client.put("a", "1", None).await.unwrap();
        client.put("b", "2", None).await.unwrap();
        client.put("a", "3", None).await.unwrap();
        let past = WatchOptions::new().with_start_revision(2).with_prev_key().with_prefix();
        let mut all = client.watch("", Some(past.clone().with_all_keys())).await.unwrap();
        let filter = [WatchFilterType::NoPut];
        let mut deletions = client.watch("a", Some(past.with_filters(filter))).await.unwrap();
        client.delete("a", None).await.unwrap();
        client.put("later", "4", None).await.unwrap();
        assert_eq!(
            events(&mut all, 5).await,
            ["put a@2", "put b@3", "put a@4 was 1", "delete a@5 was 3", "put later@6"]
        );
        assert_eq!(events(&mut deletions, 1).await, ["delete a@5 was 3"]);
        let future = WatchOptions::new().with_start_revision(9);
        let mut future = client.watch("x", Some(future)).await.unwrap();
        for _ in 0..4 {
            client.put("x", "", None).await.unwrap();
        }
        assert_eq!(events(&mut future, 2).await, ["put x@9", "put x@10"]);
    });
}

#[test]
fn what_is_forgotten_cannot_be_watched() {
    block_on(async {
        let server = Server::start().await;
        let mut client = server.client().await;
        for _ in 0..10 {
            client.put("a", "1", None).await.unwrap();
        }
        client.compact(8, Some(CompactionOptions::new().with_physical())).await.unwrap();
        let past = WatchOptions::new().with_start_revision(3);
        let mut stream = client.watch("a", Some(past)).await.unwrap();
        let response = loop {
            let response = soon("an answer", stream.message()).await.unwrap().unwrap();
            if !response.created() {
                break response;
            }
        };
        assert!(response.canceled());
        assert_eq!(response.compact_revision(), 8);
        let retained = WatchOptions::new().with_start_revision(8);
        let mut stream = client.watch("a", Some(retained)).await.unwrap();
        assert_eq!(events(&mut stream, 4).await, ["put a@8", "put a@9", "put a@10", "put a@11"]);
    });
}

#[test]
fn progress_is_told_after_everything_before_it() {
    block_on(async {
        let interval = Duration::from_millis(200);
        let server = Server::start_with(|config| config.watch_progress_notify_interval = interval).await;
        let mut client = server.client().await;
        let options = WatchOptions::new().with_prefix().with_progress_notify();
        let mut stream = client.watch("quiet", Some(options)).await.unwrap();
        let revision = client.put("other", "", None).await.unwrap().header().unwrap().revision();
        loop {
            let response = soon("a notice", stream.message()).await.unwrap().unwrap();
            assert!(response.events().is_empty());
            if response.header().unwrap().revision() >= revision {
                break;
            }
        }
        let revision = client.put("quiet", "", None).await.unwrap().header().unwrap().revision();
        stream.request_progress().await.unwrap();
        let mut seen = 0;
        loop {
            let response = soon("an answer", stream.message()).await.unwrap().unwrap();
            seen += response.events().len();
            if response.watch_id() == -1 {
                assert!(response.header().unwrap().revision() >= revision);
                assert_eq!(seen, 1, "the event comes before the notice that speaks of it");
                break;
            }
        }
    });
}

#[test]
fn thousands_of_watches_share_a_stream() {
    const MANY: usize = 3000;
    block_on(async {
        let server = Server::start().await;
        let mut client = server.client().await;
        let mut stream = client.watch("key0", None).await.unwrap();
        for n in 1..MANY {
            stream.watch(format!("key{n}"), None).await.unwrap();
        }
        stream.watch("key", Some(WatchOptions::new().with_prefix())).await.unwrap();
        let mut created = 0;
        while created < MANY {
            created += usize::from(soon("a watch", stream.message()).await.unwrap().unwrap().created());
        }
        for n in (0..MANY).step_by(100) {
            client.put(format!("key{n}"), "", None).await.unwrap();
        }
        let mut told: BTreeMap<String, usize> = BTreeMap::new();
        while told.values().sum::<usize>() < 2 * MANY / 100 {
            let response = soon("events", stream.message()).await.unwrap().unwrap();
            for event in response.events() {
                *told.entry(event.kv().unwrap().key_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        assert!(told.len() == MANY / 100 && told.values().all(|n| *n == 2), "{told:?}");
    });
}

/// Nobody reads the stream while more happens than is kept in memory.
#[test]
fn a_slow_watch_misses_nothing() {
    block_on(async {
        let server = Server::start().await;
        let mut client = server.client().await;
        let mut stream = client.watch("", Some(WatchOptions::new().with_all_keys())).await.unwrap();
        let value = vec![7; 100_000];
        for n in 0..120 {
            client.put(format!("{}", n % 7), value.clone(), None).await.unwrap();
        }
        let mut next = 2;
        while next < 122 {
            for event in soon("events", stream.message()).await.unwrap().unwrap().events() {
                let kv = event.kv().unwrap();
                assert_eq!((kv.mod_revision(), kv.value().len()), (next, 100_000));
                next += 1;
            }
        }
    });
}

#[test]
fn a_response_that_is_too_large_comes_in_fragments() {
    block_on(async {
        let server = Server::start().await;
        let mut client = server.client().await;
        let value = "x".repeat(700_000);
        let both = ["1", "2"].map(|key| TxnOp::put(key, value.as_str(), None));
        client.txn(Txn::new().and_then(both.clone())).await.unwrap();
        // With what was there before, this revision has four of the values.
        client.txn(Txn::new().and_then(both)).await.unwrap();
        let options = WatchOptions::new().with_all_keys().with_start_revision(2).with_prev_key();
        let mut stream = client.watch("", Some(options.with_fragment())).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let response = soon("a fragment", stream.message()).await.unwrap().unwrap();
            if !response.created() {
                let revisions = response.events().iter().map(|e| e.kv().unwrap().mod_revision());
                seen.push(revisions.collect::<Vec<_>>());
            }
        }
        assert_eq!(seen, [vec![2, 2], vec![3], vec![3]]);
    });
}

#[test]
fn ranges_have_every_option() {
    block_on(async {
        let server = Server::start().await;
        let mut client = server.client().await;
        for (key, value) in [("b", "1"), ("a", "3"), ("c", "2"), ("b", "0")] {
            client.put(key, value, None).await.unwrap();
        }
        let all = || GetOptions::new().with_all_keys();
        use etcd_client::{SortOrder, SortTarget};
        let cases = [
            (all(), "a b c", false),
            (all().with_limit(2), "a b", true),
            (all().with_limit(3), "a b c", false),
            (all().with_sort(SortTarget::Mod, SortOrder::Descend), "b c a", false),
            (all().with_sort(SortTarget::Create, SortOrder::Ascend), "b a c", false),
            (all().with_sort(SortTarget::Value, SortOrder::Ascend).with_limit(2), "b c", true),
            (all().with_sort(SortTarget::Version, SortOrder::Descend).with_limit(1), "b", true),
            (all().with_min_mod_revision(4), "b c", false),
            (all().with_max_mod_revision(3), "a", false),
            (all().with_min_create_revision(3).with_limit(1), "a", true),
            (all().with_max_create_revision(2), "b", false),
            (all().with_revision(3), "a b", false),
            (all().with_keys_only(), "a b c", false),
            (all().with_count_only(), "", false),
        ];
        for (options, expected, more) in cases {
            let response = client.get("", Some(options.clone())).await.unwrap();
            let keys: Vec<_> = response.kvs().iter().map(|kv| kv.key_str().unwrap()).collect();
            assert_eq!((keys.join(" ").as_str(), response.more()), (expected, more), "{options:?}");
            assert_eq!(response.count(), if expected == "a b" && !more { 2 } else { 3 }, "{options:?}");
        }
        let future = client.get("a", Some(GetOptions::new().with_revision(99))).await.unwrap_err();
        assert!(future.to_string().contains("required revision is a future revision"), "{future}");
        let large = client.put("a", vec![0; 2 << 20], None).await.unwrap_err();
        assert!(large.to_string().contains("request is too large"), "{large}");
        let kept = client.put("b", "", Some(PutOptions::new().with_ignore_value())).await;
        kept.unwrap();
        assert_eq!(client.get("b", None).await.unwrap().kvs()[0].value_str().unwrap(), "0");
    });
}
