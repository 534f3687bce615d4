//! Reading, tailing and following log files.

use std::io::Write;

use proptest::prelude::*;

use super::*;

const LOG: &str = "2024-05-01T10:00:00.5Z stdout F one\n\
    2024-05-01T10:00:01.123456789+00:00 stderr F two\n\
    2024-05-01T10:00:02Z stdout P thr\n\
    2024-05-01T10:00:03Z stdout F ee\n\
    this is no line of the format\n\
    2024-05-01T10:00:04Z stdout F \n";

fn read(options: &Options, raw: &[u8], cut: usize) -> String {
    let mut lines = line::Lines::new(options);
    let mut out = Vec::new();
    let done = raw.chunks(cut).any(|chunk| lines.push(chunk, &mut out));
    if !done {
        lines.finish(&mut out);
    }
    String::from_utf8(out).unwrap()
}

#[track_caller]
fn check(options: Options, expected: &str) {
    for cut in [1, 7, 4096] {
        assert_eq!(read(&options, LOG.as_bytes(), cut), expected);
    }
}

#[test]
fn parts_are_joined_and_what_is_no_line_is_passed_over() {
    check(Options::default(), "one\ntwo\nthree\n\n");
}

#[test]
fn timestamps_stand_before_lines_and_not_before_their_parts() {
    check(
        Options { timestamps: true, ..Options::default() },
        "2024-05-01T10:00:00.500000000Z one\n2024-05-01T10:00:01.123456789Z two\n\
         2024-05-01T10:00:02.000000000Z three\n2024-05-01T10:00:04.000000000Z \n",
    );
}

#[test]
fn what_is_older_is_left_out() {
    let since = Some("2024-05-01T10:00:02Z".parse().unwrap());
    check(Options { since, ..Options::default() }, "three\n\n");
}

#[test]
fn the_limit_is_kept_to_the_byte() {
    check(Options { limit_bytes: Some(6), ..Options::default() }, "one\ntw");
    check(Options { limit_bytes: Some(4), ..Options::default() }, "one\n");
    check(Options { limit_bytes: Some(1000), ..Options::default() }, "one\ntwo\nthree\n\n");
}

#[test]
fn a_request_says_since_when() {
    let now: Timestamp = "2024-05-01T10:00:10Z".parse().unwrap();
    let of = |request| {
        Options::of(&request, now).map(|o| o.since.map(|t| t.to_string())).map_err(|e| e.to_string())
    };
    let request = proto::LogRequest::default;
    assert_eq!(of(request()), Ok(None));
    assert_eq!(
        of(proto::LogRequest { since_seconds: Some(8), ..request() }),
        Ok(Some("2024-05-01T10:00:02Z".into()))
    );
    assert_eq!(
        of(proto::LogRequest { since_time: "2024-05-01T12:00:00+02:00".into(), ..request() }),
        Ok(Some("2024-05-01T10:00:00Z".into()))
    );
    assert!(of(proto::LogRequest { since_time: "yesterday".into(), ..request() }).is_err());
    assert!(of(proto::LogRequest { since_seconds: Some(i64::MAX), ..request() }).is_ok());
}

fn file(content: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

#[track_caller]
fn check_tail(content: &str, lines: u64, expected: &str) {
    let start = tail::start(&file(content.as_bytes()), lines).unwrap() as usize;
    assert_eq!(read(&Options::default(), &content.as_bytes()[start..], 4096), expected);
}

#[test]
fn the_tail_counts_lines_of_output() {
    let log = LOG.replace("this is no line of the format\n", "");
    check_tail(&log, 0, "");
    check_tail(&log, 1, "\n");
    check_tail(&log, 2, "three\n\n");
    check_tail(&log, 3, "two\nthree\n\n");
    check_tail(&log, 4, "one\ntwo\nthree\n\n");
    check_tail(&log, 99, "one\ntwo\nthree\n\n");
    check_tail("", 5, "");
    check_tail("2024-05-01T10:00:00Z stdout F a\n2024-05-01T10:00:00Z stdout P b\n", 1, "b");
    check_tail("2024-05-01T10:00:00Z stdout F a\n2024-05-01T10:00:00Z stdout F b", 1, "b\n");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000), cut in 1usize..100, tail in 0u64..10) {
        let mut lines = line::Lines::new(&Options { timestamps: true, limit_bytes: Some(100), ..Options::default() });
        let mut out = Vec::new();
        for chunk in bytes.chunks(cut) {
            if lines.push(chunk, &mut out) {
                break;
            }
        }
        prop_assert!(out.len() <= 100);
        prop_assert!(tail::start(&file(&bytes), tail).unwrap() <= bytes.len() as u64);
    }

    #[test]
    fn the_tail_of_a_long_log_is_its_last_lines(count in 1usize..400, width in 0usize..600, tail in 0u64..500) {
        let texts: Vec<String> = (0..count).map(|n| format!("{n}{}", "x".repeat(width))).collect();
        let raw: String = texts.iter().map(|t| format!("2024-05-01T10:00:00Z stdout F {t}\n")).collect();
        let start = tail::start(&file(raw.as_bytes()), tail).unwrap() as usize;
        let expected: String =
            texts[count.saturating_sub(tail as usize)..].iter().map(|t| format!("{t}\n")).collect();
        prop_assert_eq!(read(&Options::default(), &raw.as_bytes()[start..], 4096), expected);
    }
}

async fn nobody_ended() -> Result<bool, RuntimeError> {
    Ok(false)
}

#[tokio::test]
async fn growth_rotation_and_closing_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    let mut log = std::fs::File::create(&path).unwrap();
    let mut watch = follow::Watch::new(&path).unwrap();
    log.write_all(b"x\n").unwrap();
    watch.changed(nobody_ended).await.unwrap();
    assert!(!watch.closed());
    std::fs::rename(&path, folder.path().join("0.log.1")).unwrap();
    let _new = std::fs::File::create(&path).unwrap();
    watch.changed(nobody_ended).await.unwrap();
    assert!(!watch.closed());
    drop(log);
    watch.changed(nobody_ended).await.unwrap();
    assert!(watch.closed());
}

#[tokio::test]
async fn a_container_that_ends_after_its_log_was_closed_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    let log = std::fs::File::create(&path).unwrap();
    let mut watch = follow::Watch::new(&path).unwrap();
    drop(log);
    watch.changed(nobody_ended).await.unwrap();
    assert!(watch.closed());
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let ended = || {
        let asked = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move { Ok(asked == 1) }
    };
    watch.changed(ended).await.unwrap();
    assert!(watch.closed());
}
