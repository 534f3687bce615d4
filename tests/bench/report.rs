//! The table: what was measured, beside its budget and beside upstream.

use std::time::Duration;

use crate::load::{Latencies, Tally};
use crate::usage::Usage;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things in a second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// Millions of bytes.
    Megabytes,
    /// Percent of one core.
    Percent,
}

impl Unit {
    /// A figure as people write it.
    pub fn show(self, figure: f64) -> String {
        match self {
            Self::PerSecond => format!("{} /s", grouped(figure)),
            Self::Seconds if figure < 1.0 => format!("{:.0} ms", figure * 1000.0),
            Self::Seconds => format!("{figure:.2} s"),
            Self::Megabytes => format!("{figure:.0} MB"),
            Self::Percent => format!("{figure:.2} %"),
        }
    }

    /// Whether more is better.
    fn grows(self) -> bool {
        self == Self::PerSecond
    }
}

fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What is wanted of a figure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// The figure itself: at least this where more is better, else at most this.
    pub figure: Option<f64>,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: Option<f64>,
    /// A miss is an error: this budget was met before and must stay met.
    pub held: bool,
}

/// What was found out.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The figure, in the unit of the row.
    pub figure: f64,
    /// The time of single requests, where there were any.
    pub latencies: Latencies,
    /// What the processes used meanwhile.
    pub usage: Vec<Usage>,
    /// A budget that only the measurement itself could tell, such as one relative to a floor.
    pub budget: Option<f64>,
    /// What else a reader should know.
    pub note: String,
}

impl Outcome {
    /// A rate of requests.
    pub fn rate(tally: Tally, usage: Vec<Usage>) -> Self {
        let note = format!("{} in {:.2} s", grouped(tally.done as f64), tally.elapsed.as_secs_f64());
        Self { figure: tally.rate(), latencies: tally.latencies, usage, note, ..Self::default() }
    }

    /// The median of repeated times.
    pub fn times(times: &[Duration], usage: Vec<Usage>, note: String) -> Self {
        let micros = times.iter().map(|t| u32::try_from(t.as_micros()).unwrap_or(u32::MAX)).collect();
        let latencies = Latencies::new(micros);
        let median = latencies.quantile(0.5).unwrap_or_default();
        Self { figure: median.as_secs_f64(), latencies, usage, note, ..Self::default() }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was done.
    pub title: String,
    /// Whose binaries did it.
    pub flavor: &'static str,
    /// What the figure counts.
    pub unit: Unit,
    /// What is wanted.
    pub budget: Budget,
    /// Upstream's figure, and whether it was measured in this very run.
    pub upstream: Option<(f64, bool)>,
    /// What was found out, or why not.
    pub outcome: Result<Outcome, String>,
}

impl Row {
    /// Whether the budget is met; none where there is none.
    pub fn met(&self) -> Option<bool> {
        let outcome = match &self.outcome {
            Ok(outcome) => outcome,
            Err(_) => return Some(false),
        };
        let figure = outcome.budget.or(self.budget.figure);
        let figure =
            figure.map(|b| if self.unit.grows() { outcome.figure >= b } else { outcome.figure <= b });
        let p99 = outcome.latencies.quantile(0.99).map(|p99| p99.as_secs_f64() * 1000.0);
        let p99 = self.budget.p99_ms.map(|b| p99.is_some_and(|p99| p99 <= b));
        match (figure, p99) {
            (None, None) => None,
            (figure, p99) => Some(figure.unwrap_or(true) && p99.unwrap_or(true)),
        }
    }

    /// How many times better than upstream, from its own figure.
    fn ratio(&self) -> String {
        let (Some((theirs, here)), Ok(outcome)) = (self.upstream, &self.outcome) else {
            return String::new();
        };
        let ratio = if self.unit.grows() { outcome.figure / theirs } else { theirs / outcome.figure };
        // A figure from another machine and day is marked.
        format!("{ratio:.1}×{}", if here { "" } else { "*" })
    }

    fn target(&self) -> String {
        let figure = self.outcome.as_ref().ok().and_then(|o| o.budget).or(self.budget.figure);
        let sign = if self.unit.grows() { "≥" } else { "≤" };
        let mut parts: Vec<_> = figure.iter().map(|f| format!("{sign} {}", self.unit.show(*f))).collect();
        parts.extend(self.budget.p99_ms.map(|p99| format!("p99 ≤ {p99:.0} ms")));
        parts.join(", ")
    }

    fn verdict(&self) -> &'static str {
        match (self.met(), self.budget.held) {
            (Some(true), _) => "met",
            (Some(false), true) => "MISSED",
            (Some(false), false) => "missed",
            (None, _) => "",
        }
    }

    fn cells(&self) -> [String; 10] {
        let quantile = |share| {
            let time = self.outcome.as_ref().ok().and_then(|o| o.latencies.quantile(share));
            time.map(|t| format!("{:.1} ms", t.as_secs_f64() * 1000.0)).unwrap_or_default()
        };
        let (result, usage, note) = match &self.outcome {
            Ok(o) => (self.unit.show(o.figure), usage(&o.usage), o.note.clone()),
            Err(error) => ("failed".into(), String::new(), error.clone()),
        };
        [
            self.title.clone(),
            self.flavor.to_owned(),
            result,
            quantile(0.5),
            quantile(0.99),
            self.target(),
            self.ratio(),
            self.verdict().to_owned(),
            usage,
            note,
        ]
    }
}

fn usage(all: &[Usage]) -> String {
    let one = |u: &Usage| {
        let name = u.name.strip_prefix("kube-").unwrap_or(&u.name);
        format!("{name} {:.0} % {:.0} MB", u.cores * 100.0, u.peak as f64 / 1e6)
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The whole table, in a form that Markdown shows as one.
pub fn table(rows: &[Row]) -> String {
    let head = [
        "work",
        "of",
        "result",
        "p50",
        "p99",
        "target",
        "ratio",
        "verdict",
        "CPU and peak memory",
        "in detail",
    ];
    let head = head.map(str::to_owned);
    let rule = head.clone().map(|_| "---".to_owned());
    let lines: Vec<_> = [head, rule].into_iter().chain(rows.iter().map(Row::cells)).collect();
    let width = |at: usize| lines.iter().map(|l| l[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..lines[0].len()).map(width).collect();
    let line = |cells: &[String; 10]| {
        let cell = |(text, width): (&String, &usize)| {
            let fill = if text == "---" { '-' } else { ' ' };
            format!("{text}{}", fill.to_string().repeat(width - text.chars().count()))
        };
        format!("| {} |\n", cells.iter().zip(&widths).map(cell).collect::<Vec<_>>().join(" | "))
    };
    let mut text: String = lines.iter().map(line).collect();
    if rows.iter().any(|r| r.upstream.is_some_and(|(_, here)| !here)) {
        text.push_str(
            "\n* against the figure that upstream reached where the targets were set, not in this run\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(unit: Unit, figure: f64, budget: Budget) -> Row {
        let latencies = Latencies::new(vec![12_000]);
        let outcome = Ok(Outcome { figure, latencies, ..Outcome::default() });
        Row { title: "work".into(), flavor: "coxswain", unit, budget, upstream: Some((100.0, true)), outcome }
    }

    #[track_caller]
    fn check(unit: Unit, figure: f64, budget: (Option<f64>, Option<f64>), met: Option<bool>, ratio: &str) {
        let budget = Budget { figure: budget.0, p99_ms: budget.1, held: true };
        let row = row(unit, figure, budget);
        assert_eq!((row.met(), row.ratio().as_str()), (met, ratio));
    }

    #[test]
    fn budgets_bound_rates_from_below_and_all_else_from_above() {
        check(Unit::PerSecond, 250.0, (Some(200.0), None), Some(true), "2.5×");
        check(Unit::PerSecond, 50.0, (Some(200.0), None), Some(false), "0.5×");
        check(Unit::Seconds, 50.0, (Some(200.0), None), Some(true), "2.0×");
        check(Unit::Megabytes, 200.0, (Some(100.0), None), Some(false), "0.5×");
        check(Unit::PerSecond, 250.0, (Some(200.0), Some(11.0)), Some(false), "2.5×");
        check(Unit::PerSecond, 250.0, (Some(200.0), Some(12.0)), Some(true), "2.5×");
        check(Unit::PerSecond, 250.0, (None, None), None, "2.5×");
    }

    #[test]
    fn what_failed_is_missed() {
        let budget = Budget { figure: Some(1.0), p99_ms: None, held: true };
        let mut row = row(Unit::Seconds, 0.5, budget);
        assert_eq!(row.verdict(), "met");
        row.outcome = Err("no".into());
        assert_eq!((row.verdict(), row.ratio().as_str()), ("MISSED", ""));
    }

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(Unit::PerSecond.show(1_234_567.8), "1,234,568 /s");
        assert_eq!(Unit::PerSecond.show(12.0), "12 /s");
        assert_eq!(Unit::Seconds.show(0.38), "380 ms");
    }
}
