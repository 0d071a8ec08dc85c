//! Texts with a unit: durations and sizes.

use std::time::Duration;

/// A duration such as `200ms`, `30s`, `1h30m`, `7d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == ' ').unwrap_or(rest.len());
        let part = match &rest[..unit_len] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" | "min" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            "d" => Duration::from_secs(number.checked_mul(86_400)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = rest[unit_len..].trim_start();
    }
    Some(total)
}

/// `duration` as it would be written in the file.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms >= size && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

/// A size in bytes such as `160MiB`, `2GiB`, `512KiB`; a bare number is refused because its unit is anybody's guess.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// `bytes` as it would be written in the file.
pub(super) fn show_size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown_alike() {
        for (text, ms) in [("200ms", 200), ("30s", 30_000), ("24h", 86_400_000), ("90m", 5_400_000), ("0s", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(duration(&show_duration(Duration::from_millis(ms))), Some(Duration::from_millis(ms)));
        }
        assert_eq!(duration("1h30m"), duration("90m"));
        assert_eq!(duration("1h 30m"), duration("90m"));
        assert_eq!(duration("36h"), duration("1d 12h"));
        for bad in ["", "5", "s", "5 s", "-5s", "5sec", "1.5h", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown_alike() {
        for (text, bytes) in [("160MiB", 160 << 20), ("2GiB", 2 << 30), ("512KiB", 512 << 10)] {
            assert_eq!(size(text), Some(bytes));
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(size("160 MiB"), size("160M"));
        for bad in ["", "160", "MiB", "1.5GiB", "-1MiB", "99999999999GiB", "5 parsecs"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
