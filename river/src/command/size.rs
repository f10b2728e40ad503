//! Human-readable sizes.

/// Parses a number of bytes such as `4G`, `512M`, `64KiB` or `1000000`. Units are powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: use a number of bytes, or a size such as 512M or 4G");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim_start().to_ascii_uppercase();
    let shift = match unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit) {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    match number.checked_mul(1 << shift) {
        Some(0) => Err("it must be greater than zero".into()),
        Some(bytes) => Ok(bytes),
        None => Err(format!("{text} is more than any machine has")),
    }
}

/// Formats a number of bytes.
pub(crate) fn mebibytes(bytes: u64) -> String {
    match bytes >> 20 {
        mebibytes @ 0..10_240 => format!("{mebibytes} MiB"),
        mebibytes => format!("{:.1} GiB", mebibytes as f64 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, mebibytes};

    #[test]
    fn sizes_are_shown_in_a_unit_that_fits() {
        assert_eq!([0, 5 << 20, 24 << 30].map(mebibytes), ["0 MiB", "5 MiB", "24.0 GiB"]);
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("1", 1),
            ("512M", 512 << 20),
            ("4G", 4 << 30),
            ("4g", 4 << 30),
            ("64 KiB", 64 << 10),
            ("2TB", 2 << 40),
        ];
        for (text, size) in cases {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "G", "1.5G", "-1", "4X", "4GG", "iB", "+4", "0", "0G", "18446744073709551616", "99999999T"]
        {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
