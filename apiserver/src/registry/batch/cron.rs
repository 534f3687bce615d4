//! The schedules of CronJobs: whether they can be read.

/// What is wrong with a schedule: five fields, or one of the names that begin with `@`.
pub fn problem(schedule: &str) -> Option<String> {
    const NAMES: &[&str] = &["@annually", "@daily", "@hourly", "@midnight", "@monthly", "@weekly", "@yearly"];
    if let Some(every) = schedule.strip_prefix("@every ") {
        return (!is_duration(every)).then(|| format!("failed to parse duration {schedule}"));
    }
    if schedule.starts_with('@') {
        return (!NAMES.contains(&schedule)).then(|| format!("unrecognized descriptor: {schedule}"));
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    const MONTHS: &[&str] =
        &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let bounds: [(u32, u32, &[&str]); 5] =
        [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];
    fields.iter().zip(bounds).find_map(|(field, (low, high, names))| {
        field.split(',').find_map(|part| range_problem(part, low, high, names))
    })
}

fn range_problem(part: &str, low: u32, high: u32, names: &[&str]) -> Option<String> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (part, None),
    };
    if let Some(step) = step {
        match step.parse::<u32>() {
            Ok(0) => return Some(format!("step of range should be a positive number: {part}")),
            Ok(_) => {}
            Err(_) => return Some(format!("failed to parse int from {step}: invalid syntax")),
        }
    }
    if matches!(range, "*" | "?") {
        return None;
    }
    let number = |text: &str| -> Result<u32, String> {
        let named = names.iter().position(|n| *n == text.to_lowercase());
        let first = low;
        match named.and_then(|i| u32::try_from(i).ok()) {
            Some(index) => Ok(index + first),
            None => text.parse().map_err(|_| format!("failed to parse int from {text}: invalid syntax")),
        }
    };
    let (start, end) = range.split_once('-').unwrap_or((range, range));
    let (start, end) = match (number(start), number(end)) {
        (Ok(start), Ok(end)) => (start, end),
        (Err(error), _) | (_, Err(error)) => return Some(error),
    };
    if start < low {
        return Some(format!("beginning of range ({start}) below minimum ({low}): {part}"));
    }
    if end > high {
        return Some(format!("end of range ({end}) above maximum ({high}): {part}"));
    }
    (start > end).then(|| format!("beginning of range ({start}) beyond end of range ({end}): {part}"))
}

/// A duration as Go writes it: `1h30m`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim();
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        if digits == 0 || rest[..digits].parse::<f64>().is_err() {
            return false;
        }
        rest = &rest[digits..];
        let Some(unit) = ["ns", "us", "ms", "s", "m", "h"].iter().find(|u| rest.starts_with(**u)) else {
            return false;
        };
        rest = &rest[unit.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn schedules_are_read_as_cron_does() {
        for good in [
            "* * * * *",
            "*/5 0-6 1,15 jan-mar MON-FRI",
            "@hourly",
            "@every 1h30m",
            "0 0 ? * 0",
            "5/10 * * * *",
        ] {
            assert_eq!(problem(good), None, "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "@never",
            "@every x",
            "a * * * *",
            "* * * * 7",
        ] {
            assert!(problem(bad).is_some(), "{bad}");
        }
    }
}
