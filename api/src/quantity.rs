//! Quantities: `100m`, `1.5`, `64Mi`, `2e3`, as exact decimal numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

const NANO: i128 = 1_000_000_000;

/// An exact amount, held in billionths, as fine as Kubernetes allows. Finer input is rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Amount(i128);

/// Text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': {0:?}")]
pub struct QuantityError(pub String);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Whole units.
    pub const fn units(n: i64) -> Self {
        Self(n as i128 * NANO)
    }

    /// Thousandths, the usual unit of CPU.
    pub const fn milli(n: i64) -> Self {
        Self(n as i128 * (NANO / 1000))
    }

    /// The amount in whole units, rounded up (bytes of memory, counts of pods).
    pub fn to_units(self) -> i64 {
        clamp(div_ceil(self.0, NANO))
    }

    /// The amount in thousandths, rounded up (millicores).
    pub fn to_milli(self) -> i64 {
        clamp(div_ceil(self.0, NANO / 1000))
    }

    /// Whether the amount is below zero.
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Parses the documented grammar: a signed decimal with a binary (`Ki` … `Ei`), decimal
    /// (`n`, `u`, `m`, ``, `k`, `M` … `E`) or exponent (`e3`) suffix. What is too large saturates.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError(text.to_owned());
        let (negative, body) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
        let (number, suffix) = body.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(error());
        }
        let scale = Scale::parse(suffix).ok_or_else(error)?;
        let amount = scale.apply(whole, fraction);
        Ok(Self(if negative { -amount } else { amount }))
    }

    /// The canonical form, with the family of suffixes (binary, decimal or exponent) that `like` uses.
    pub fn show_as(self, like: &str) -> String {
        let Self(mut nano) = self;
        if nano == 0 {
            return "0".into();
        }
        if like.ends_with('i') && nano.abs() >= 1024 * NANO {
            let mut units = div_ceil(nano, NANO);
            let mut power = 0;
            while power < BINARY.len() - 1 && units % 1024 == 0 {
                units /= 1024;
                power += 1;
            }
            return format!("{units}{}", BINARY[power]);
        }
        let mut exponent = -9;
        while exponent < 18 && nano % 1000 == 0 {
            nano /= 1000;
            exponent += 3;
        }
        let exponential = like.find(['e', 'E']).is_some_and(|at| at + 1 < like.len());
        if exponential && exponent != 0 {
            return format!("{nano}e{exponent}");
        }
        format!("{nano}{}", DECIMAL[(exponent + 9) as usize / 3])
    }
}

/// The canonical form of a quantity, in which the API stores and shows it: no fraction, the largest
/// suffix of the family that was used (`1500m`, `1536Mi`, `2e3`).
///
/// # Errors
/// When the text is no quantity.
pub fn canonical(text: &str) -> Result<String, QuantityError> {
    Ok(Amount::parse(text)?.show_as(text))
}

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

fn clamp(n: i128) -> i64 {
    n.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn div_ceil(n: i128, d: i128) -> i128 {
    n.div_euclid(d) + i128::from(n.rem_euclid(d) != 0)
}

enum Scale {
    Binary(u32),
    Decimal(i32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "" => Self::Decimal(0),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E'])?;
                if exponent.is_empty() || exponent.len() > 4 {
                    return None;
                }
                Self::Decimal(exponent.parse().ok()?)
            }
        })
    }

    /// `whole.fraction` at this scale in billionths, rounded up and saturated at 2^63 units.
    fn apply(&self, whole: &str, fraction: &str) -> i128 {
        let max = i128::from(i64::MAX) * NANO;
        let digits: String = whole.chars().chain(fraction.chars()).collect();
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return 0;
        }
        // value = digits × 10^exponent × 2^shift billionths
        let (exponent, shift) = match self {
            Self::Binary(bits) => (9 - fraction.len() as i64, *bits),
            Self::Decimal(ten) => (9 + i64::from(*ten) - fraction.len() as i64, 0),
        };
        let magnitude = digits.len() as i64 + exponent;
        if magnitude > 30 {
            return max;
        }
        if magnitude < -30 {
            return 1;
        }
        // Digits beyond thirty cannot change a value that is held in billionths, but for rounding up.
        let kept = &digits[..digits.len().min(30)];
        let dropped = digits.len() - kept.len();
        let rest_is_zero = digits[kept.len()..].bytes().all(|b| b == b'0');
        let mut value: i128 = kept.parse().expect("at most thirty digits fit in 128 bits");
        let exponent = exponent + dropped as i64;
        value = if exponent >= 0 {
            value.saturating_mul(10i128.saturating_pow(exponent as u32)).saturating_mul(1 << shift)
        } else {
            let shifted = value.saturating_mul(1 << shift);
            let divisor = 10i128.saturating_pow((-exponent) as u32);
            div_ceil(shifted, divisor)
        };
        if !rest_is_zero {
            value = value.saturating_add(1);
        }
        value.min(max)
    }
}

impl std::ops::Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::ops::Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, |a, b| a + b)
    }
}

impl TryFrom<&Text> for Amount {
    type Error = QuantityError;
    fn try_from(text: &Text) -> Result<Self, QuantityError> {
        Self::parse(&text.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Amount, canonical};
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, milli: i64) {
        assert_eq!(Amount::parse(text).map(Amount::to_milli), Ok(milli), "{text}");
    }

    #[test]
    fn documented_forms_parse() {
        check("0", 0);
        check("100m", 100);
        check("1.5", 1500);
        check(".5", 500);
        check("5.", 5000);
        check("-2", -2000);
        check("1k", 1_000_000);
        check("2e3", 2_000_000);
        check("1E-3", 1);
        check("1n", 1);
        check("64Mi", 64 * 1024 * 1024 * 1000);
        check("0.5Gi", 512 * 1024 * 1024 * 1000);
        check("9999999999999E", i64::MAX);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for bad in ["", ".", "1.2.3", "m", "1mm", "1Kib", "0x1", "1 ", "1e", "--1", "1e99999"] {
            assert!(Amount::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn quantities_have_a_canonical_form() {
        for (text, expected) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1", "1"),
            ("1000", "1k"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("0.5Ki", "512"),
            ("128974848", "128974848"),
            ("2e3", "2e3"),
            ("100e-3", "100e-3"),
            ("1E", "1E"),
            ("0Gi", "0"),
            ("-1000m", "-1"),
            ("0.1n", "1n"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_the_same_amount_and_canonical(text in "-?[0-9]{1,6}(\\.[0-9]{1,3})?(m|k|M|)") {
            let form = canonical(&text).unwrap();
            prop_assert_eq!(Amount::parse(&form), Amount::parse(&text));
            prop_assert_eq!(canonical(&form), Ok(form));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = Amount::parse(&text);
            let _ = canonical(&text);
        }

        #[test]
        fn any_number_of_digits_parses(text in "[0-9]{0,50}\\.[0-9]{1,50}(m|Ki|Ei|e-9|E9|)") {
            prop_assert!(Amount::parse(&text).is_ok());
        }

        #[test]
        fn order_is_that_of_the_numbers(a in 0i64..1 << 40, b in 0i64..1 << 40) {
            let (x, y) = (Amount::parse(&a.to_string()).unwrap(), Amount::parse(&format!("{b}000m")).unwrap());
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
        }
    }
}
