//! Dates and times as the log stores them → their canonical texts, without going through a formatter.

/// Text under construction: at most `-838:59:59.000000` or a timestamp with its `Z`.
pub(crate) struct Stamp {
    bytes: [u8; 40],
    len: usize,
}

/// Powers of ten by their exponents.
const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut at = 1;
    while at < 20 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

impl Default for Stamp {
    fn default() -> Self {
        Self { bytes: [0; 40], len: 0 }
    }
}

impl Stamp {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    /// A number in at least `width` digits.
    fn number(&mut self, value: u64, width: usize) {
        let mut digits = width;
        while POWERS.get(digits).is_some_and(|power| value >= *power) {
            digits += 1;
        }
        let Some(slots) = self.bytes.get_mut(self.len..self.len + digits) else { return };
        let mut rest = value;
        for slot in slots.iter_mut().rev() {
            *slot = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        self.len += digits;
    }

    pub(crate) fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    }

    /// `YYYY-MM-DD`.
    pub(crate) fn date(&mut self, year: u64, month: u64, day: u64) {
        self.number(year, 4);
        self.push(b'-');
        self.number(month, 2);
        self.push(b'-');
        self.number(day, 2);
    }

    /// `HH:MM:SS[.f]`, without zeros at the fraction's end.
    pub(crate) fn time(&mut self, hour: u64, minute: u64, second: u64, micros: u64) {
        self.number(hour, 2);
        self.push(b':');
        self.number(minute, 2);
        self.push(b':');
        self.number(second, 2);
        if micros > 0 {
            self.push(b'.');
            self.number(micros, 6);
            while self.len > 0 && self.bytes[self.len - 1] == b'0' {
                self.len -= 1;
            }
        }
    }

    /// Any character.
    pub(crate) fn mark(&mut self, byte: u8) {
        self.push(byte);
    }
}

/// A date and time, as the calendar has it or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Civil {
    pub(crate) year: u64,
    pub(crate) month: u64,
    pub(crate) day: u64,
    pub(crate) hour: u64,
    pub(crate) minute: u64,
    pub(crate) second: u64,
    pub(crate) micros: u64,
}

impl Civil {
    /// The UTC date and time at so many seconds after 1970.
    pub(crate) fn at(seconds: u64, micros: u64) -> Self {
        // Days are counted from 1 March of year 0, so that leap days come last in their year.
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let rest = seconds % 86_400;
        Self { year, month, day, hour: rest / 3600, minute: rest / 60 % 60, second: rest % 60, micros }
    }

    /// Whether no calendar has that day.
    pub(crate) fn is_zero(&self) -> bool {
        self.month == 0 || self.day == 0
    }

    /// `YYYY-MM-DD`, then `between`, then the time.
    pub(crate) fn stamp(&self, between: u8) -> Stamp {
        let mut out = Stamp::default();
        out.date(self.year, self.month, self.day);
        out.mark(between);
        out.time(self.hour, self.minute, self.second, self.micros);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (2_147_483_647, "2038-01-19T03:14:07"),
            (4_294_967_295, "2106-02-07T06:28:15"),
            (1_709_251_199, "2024-02-29T23:59:59"),
        ] {
            assert_eq!(Civil::at(seconds, 0).stamp(b'T').as_str(), wanted);
        }
        assert_eq!(Civil::at(0, 120_000).stamp(b' ').as_str(), "1970-01-01 00:00:00.12");
    }

    #[test]
    fn numbers_take_the_digits_they_need() {
        for (value, width, wanted) in [
            (0, 2, "00"),
            (9, 1, "9"),
            (10, 1, "10"),
            (99, 2, "99"),
            (123_456, 2, "123456"),
            (u64::MAX, 1, "18446744073709551615"),
        ] {
            let mut out = Stamp::default();
            out.number(value, width);
            assert_eq!(out.as_str(), wanted);
        }
    }

    #[test]
    fn long_times_are_written() {
        let mut out = Stamp::default();
        out.mark(b'-');
        out.time(838, 59, 59, 1);
        assert_eq!(out.as_str(), "-838:59:59.000001");
    }
}
