//! Times as people read them: `5m30s`, `3d`.

use jiff::Timestamp;
use serde_json::Value;

/// The time in a field such as `metadata.creationTimestamp`.
pub fn parse(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// How long ago a field's time was; `<unknown>` if it is not set.
pub fn since(value: &Value, now: Timestamp) -> String {
    parse(value).map_or_else(|| "<unknown>".into(), |then| human(now.as_second() - then.as_second()))
}

/// Seconds in the short form of tables.
pub fn human(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 192 {
        two(days, "d", hours % 24, "h")
    } else if days < 365 * 2 {
        format!("{days}d")
    } else if days < 365 * 8 {
        two(days / 365, "y", days % 365, "d")
    } else {
        format!("{}y", days / 365)
    }
}

/// `Mon, 02 Jan 2006 15:04:05 +0000`, as descriptions have it.
pub fn long(value: &Value) -> String {
    parse(value).map_or_else(String::new, |t| t.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (seconds, want) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3600 * 2, "120m"),
            (3600 * 3, "3h"),
            (3600 * 3 + 60, "3h1m"),
            (3600 * 47, "47h"),
            (3600 * 50, "2d2h"),
            (86400 * 9, "9d"),
            (86400 * 800, "2y70d"),
            (86400 * 365 * 9, "9y"),
        ] {
            assert_eq!(human(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn long_times_are_rfc_1123() {
        assert_eq!(long(&Value::from("2006-01-02T15:04:05Z")), "Mon, 02 Jan 2006 15:04:05 +0000");
    }
}
