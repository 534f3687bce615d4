//! How cells of server-side tables are written.

use std::collections::BTreeMap;

use api::openapi::api::core::v1::PodTemplateSpec;
use api::openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use api::selector::label::Selector;
use jiff::Timestamp;

/// The age of something, such as `5m12s`; `<unknown>` without a time.
pub fn age(since: Option<&Time>, now: Timestamp) -> String {
    since.map_or_else(|| "<unknown>".into(), |t| human_duration(now.as_second() - t.0.as_second()))
}

/// Seconds in kubectl's notation: two units at most, the finer one dropped as the duration grows.
pub fn human_duration(seconds: i64) -> String {
    let two = |major: i64, major_unit: &str, minor: i64, minor_unit: &str| {
        if minor == 0 {
            format!("{major}{major_unit}")
        } else {
            format!("{major}{major_unit}{minor}{minor_unit}")
        }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        i64::MIN..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10800 => format!("{minutes}m"),
        10800..28800 => two(hours, "h", minutes % 60, "m"),
        28800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// A text, or `<none>` for what is unset or empty.
pub fn or_none(text: Option<&str>) -> String {
    text.filter(|t| !t.is_empty()).unwrap_or("<none>").to_owned()
}

/// Labels as `a=b,c=d`, or `<none>`.
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    let pairs: Vec<_> = labels.into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    or_none(Some(&pairs.join(",")))
}

/// A label selector in the query grammar, or `<none>`.
pub fn selector(selector: &LabelSelector) -> String {
    let text = Selector::from_typed(Some(selector)).map_or_else(|_| "<invalid>".into(), |s| s.to_string());
    or_none(Some(&text))
}

/// The names and the images of a template's containers, each joined by commas.
pub fn containers(template: &PodTemplateSpec) -> (String, String) {
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    let (names, images): (Vec<_>, Vec<_>) =
        containers.map(|c| (c.name.as_str(), c.image.as_deref().unwrap_or_default())).unzip();
    (names.join(","), images.join(","))
}

/// The first three of a list, joined by commas, and how many there are beyond.
pub fn first_three(all: &[String]) -> String {
    match all {
        [a, b, c, more @ ..] if !more.is_empty() => format!("{a},{b},{c} + {} more...", more.len()),
        all => all.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn durations_lose_detail_as_they_grow() {
        let table = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10799, "179m"),
            (10800, "3h"),
            (10860, "3h1m"),
            (28800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ];
        for (seconds, text) in table {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
