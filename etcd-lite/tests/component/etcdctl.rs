//! Debian's etcdctl, unchanged.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Server, block_on};

/// Runs etcdctl; returns what it prints, which includes errors.
async fn ctl(server: &Server, args: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &server.url, "--command-timeout=30s"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let run = move || {
        let mut child = command.spawn().expect("etcdctl is on PATH");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// A call that must succeed and print exactly this.
async fn prints(server: &Server, args: &[&str], expected: &str) {
    let (success, text) = ctl(server, args, "").await;
    assert!(success && text == expected, "{args:?}: {text}");
}

/// A call that must succeed and print this among other things.
async fn shows(server: &Server, args: &[&str], expected: &str) {
    let (success, text) = ctl(server, args, "").await;
    assert!(success && text.contains(expected), "{args:?}: {text}");
}

#[test]
fn keys_are_written_read_and_deleted() {
    block_on(async {
        let server = Server::start().await;
        for (key, value) in [("a", "1"), ("ab", "2"), ("b", "3")] {
            prints(&server, &["put", key, value], "OK\n").await;
        }
        prints(&server, &["get", "a"], "a\n1\n").await;
        prints(&server, &["get", "--prefix", "a", "--print-value-only"], "1\n2\n").await;
        prints(&server, &["get", "--from-key", "ab", "--order=DESCEND", "--keys-only"], "b\n\nab\n\n").await;
        prints(
            &server,
            &["get", "--prefix", "", "--limit=1", "--sort-by=VALUE", "--order=DESCEND"],
            "b\n3\n",
        )
        .await;
        prints(&server, &["put", "a", "4", "--prev-kv"], "OK\na\n1\n").await;
        prints(&server, &["get", "a", "--rev=2"], "a\n1\n").await;
        prints(&server, &["del", "--prefix", "a"], "2\n").await;
        shows(&server, &["get", "b", "-w", "json"], "\"create_revision\":4,\"mod_revision\":4,\"version\":1")
            .await;
        let txn = "mod(\"b\") = \"4\"\nvalue(\"a\") = \"1\"\n\nput x 1\n\nget b\nput y 2\n\n";
        let (success, text) = ctl(&server, &["txn"], txn).await;
        assert!(success && text == "FAILURE\n\nb\n3\n\nOK\n", "{text}");
        prints(&server, &["compaction", "6"], "compacted revision 6\n").await;
        let (success, text) = ctl(&server, &["get", "b", "--rev=5"], "").await;
        assert!(!success && text.contains("mvcc: required revision has been compacted"), "{text}");
    });
}

#[test]
fn the_server_shows_its_state() {
    block_on(async {
        let server = Server::start().await;
        prints(&server, &["put", "a", "1"], "OK\n").await;
        shows(&server, &["endpoint", "health"], "is healthy").await;
        shows(&server, &["endpoint", "status", "-w", "json"], "\"version\":\"3.5").await;
        shows(&server, &["endpoint", "hashkv", "-w", "json"], "\"hash\"").await;
        shows(&server, &["member", "list"], "started, test").await;
        prints(&server, &["alarm", "list"], "").await;
        shows(&server, &["defrag"], "Finished defragmenting").await;
        let (success, text) = ctl(&server, &["lease", "grant", "100"], "").await;
        let id = text.split_whitespace().nth(1).unwrap_or_default().to_owned();
        assert!(success && text.contains("granted with TTL(100s)"), "{text}");
        prints(&server, &["put", "leased", "1", "--lease", &id], "OK\n").await;
        shows(&server, &["lease", "timetolive", &id, "--keys"], "attached keys([leased])").await;
        shows(&server, &["lease", "list"], &id).await;
        shows(&server, &["lease", "keep-alive", "--once", &id], "keepalived with TTL(100)").await;
        shows(&server, &["lease", "revoke", &id], "revoked").await;
        prints(&server, &["get", "leased"], "").await;
    });
}

#[test]
fn a_snapshot_is_saved_and_restored() {
    block_on(async {
        let server = Server::start().await;
        let large = "x".repeat(50_000);
        for n in 0..20 {
            prints(&server, &["put", &format!("key{n:02}"), &large], "OK\n").await;
        }
        prints(&server, &["del", "key07"], "1\n").await;
        let file = server.dir.path().join("snapshot");
        let path = file.to_str().unwrap();
        shows(&server, &["snapshot", "save", path], "Snapshot saved").await;
        let ours = server.dir.path().join("ours");
        etcd_lite::backup::backup(&server.url, None, &ours).await.unwrap();
        assert_eq!(
            std::fs::read(&ours).unwrap(),
            std::fs::read(&file).unwrap(),
            "ours and etcdctl's are the same"
        );
        prints(&server, &["put", "later", "1"], "OK\n").await;
        let restored = tempfile::TempDir::new().unwrap();
        let options = etcd_lite::snapshot::RestoreOptions {
            bump_revision: 1000,
            mark_compacted: true,
            ..Default::default()
        };
        let revision = etcd_lite::snapshot::restore(&file, restored.path(), options).unwrap();
        assert_eq!(revision, 22 + 1000);
        let later = tempfile::TempDir::new().unwrap();
        let at_least = etcd_lite::snapshot::RestoreOptions { revision_at_least: 5000, ..options };
        assert_eq!(etcd_lite::snapshot::restore(&file, later.path(), at_least).unwrap(), 5000);
        let again = etcd_lite::snapshot::restore(&file, restored.path(), options);
        assert!(again.is_err(), "data is never overwritten");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[5000] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let elsewhere = tempfile::TempDir::new().unwrap();
        assert!(etcd_lite::snapshot::restore(&file, elsewhere.path(), options).is_err(), "it is damaged");

        let server = Server::start_in(restored, |_| {}).await;
        prints(&server, &["get", "later"], "").await;
        prints(&server, &["get", "key07"], "").await;
        prints(&server, &["get", "key08", "--print-value-only"], &format!("{large}\n")).await;
        shows(&server, &["get", "--prefix", "key", "--keys-only", "-w", "json"], "\"count\":19").await;
        shows(&server, &["get", "key08", "-w", "json"], "\"create_revision\":10,\"mod_revision\":10").await;
        shows(&server, &["put", "new", "1", "-w", "json"], "\"revision\":1023").await;
    });
}

#[test]
fn a_full_store_refuses_writes_until_there_is_room_again() {
    block_on(async {
        let server = Server::start_with(|config| config.quota_backend_bytes = 300_000).await;
        // What does not change takes no room.
        let [first, large, third] = ["x", "y", "z"].map(|letter| letter.repeat(100_000));
        prints(&server, &["put", "a", &first], "OK\n").await;
        prints(&server, &["put", "a", &large], "OK\n").await;
        let (success, text) = ctl(&server, &["put", "a", &third], "").await;
        assert!(!success && text.contains("database space exceeded"), "{text}");
        shows(&server, &["alarm", "list"], "alarm:NOSPACE").await;
        prints(&server, &["get", "a", "--print-value-only"], &format!("{large}\n")).await;
        prints(&server, &["del", "a"], "1\n").await;
        prints(&server, &["compaction", "4", "--physical"], "compacted revision 4\n").await;
        let (success, text) = ctl(&server, &["put", "b", "1"], "").await;
        assert!(!success && text.contains("database space exceeded"), "{text}");
        shows(&server, &["alarm", "disarm"], "alarm:NOSPACE").await;
        prints(&server, &["put", "b", "1"], "OK\n").await;
    });
}

/// Takes a minute, which is what etcdctl makes of it.
#[test]
#[ignore = "takes a minute and wants the machine for itself"]
fn the_performance_check_passes() {
    block_on(async {
        let server = Server::start().await;
        let (success, text) = ctl(&server, &["--command-timeout=100s", "check", "perf"], "").await;
        assert!(success && text.contains("PASS: Throughput") && !text.contains("FAIL"), "{text}");
    });
}
