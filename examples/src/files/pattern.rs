//! Glob patterns, component by component, on bytes: names need not be UTF-8.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Whether a path component contains a wildcard.
pub(super) fn is_pattern(component: &OsStr) -> bool {
    component.as_bytes().iter().any(|byte| b"*?[".contains(byte))
}

/// Whether a file name matches the pattern of one path component: `*` any bytes, `?` one character, `[a-z]` one byte of
/// a set, `[!a-z]` one byte not in it, everything else itself. A `[` without a closing `]` stands for itself. As in a
/// shell, only a pattern that begins with a dot matches a name that does.
pub(super) fn matches(pattern: &OsStr, name: &OsStr) -> bool {
    let (mut pattern, mut name) = (pattern.as_bytes(), name.as_bytes());
    if name.starts_with(b".") && !pattern.starts_with(b".") {
        return false;
    }
    // Where to continue if the rest does not match: after the last `*`, which then matches one byte more. Only the last
    // one matters, so this is never worse than quadratic.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            pattern = rest;
            retry = Some((rest, name));
        } else if pattern.is_empty() && name.is_empty() {
            return true;
        } else if let Some(rest) = step(pattern, name) {
            (pattern, name) = rest;
        } else if let Some((after_star, [_, taken @ ..])) = retry {
            (pattern, name) = (after_star, taken);
            retry = Some((after_star, taken));
        } else {
            return false;
        }
    }
}

/// Matches one character; returns the rest of pattern and name.
fn step<'p, 'n>(pattern: &'p [u8], name: &'n [u8]) -> Option<(&'p [u8], &'n [u8])> {
    let (&first, rest) = pattern.split_first()?;
    let (&byte, after) = name.split_first()?;
    match first {
        b'?' => {
            // A character of UTF-8: its continuation bytes begin with the bits 10.
            let more =
                if byte < 0xc0 { 0 } else { after.iter().take_while(|&&byte| byte >> 6 == 0b10).count() };
            Some((rest, &after[more..]))
        }
        b'[' => match set(rest) {
            Some((members, negated, rest)) => (contains(members, byte) != negated).then_some((rest, after)),
            None => (byte == b'[').then_some((rest, after)),
        },
        _ => (first == byte).then_some((rest, after)),
    }
}

/// Splits the text after a `[` into the members, whether they are excluded, and the text after the `]`.
fn set(pattern: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let (negated, pattern) = match pattern {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    // A `]` in first position is a member.
    let end = 1 + pattern.get(1..)?.iter().position(|&byte| byte == b']')?;
    Some((&pattern[..end], negated, &pattern[end + 1..]))
}

fn contains(mut members: &[u8], byte: u8) -> bool {
    loop {
        members = match members {
            [low, b'-', high, rest @ ..] if (low..=high).contains(&&byte) || rest.is_empty() => {
                return (low..=high).contains(&&byte);
            }
            [_, b'-', _, rest @ ..] => rest,
            [member, rest @ ..] if *member != byte => rest,
            [] => return false,
            _ => return true,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pattern: &[u8], name: &[u8]) -> bool {
        matches(OsStr::from_bytes(pattern), OsStr::from_bytes(name))
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        let yes: [(&str, &str); 14] = [
            ("*", "a"),
            ("*.txt", "a.txt"),
            ("f*1*.t?t", "f0010.txt"),
            ("*a*a*", "banana"),
            ("?", "é"),
            ("x?y", "xéy"),
            ("[a-c]1", "b1"),
            ("[!a-c]1", "d1"),
            ("[]x]", "]"),
            ("[a-]", "-"),
            ("[xa-c0]", "0"),
            ("[", "["),
            (".*", ".git"),
            ("**", "abc"),
        ];
        for (pattern, name) in yes {
            assert!(check(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        let no: [(&str, &str); 9] = [
            ("*", ".git"),
            ("?git", ".git"),
            ("[.]git", ".git"),
            ("*.txt", "a.txt2"),
            ("?", "ab"),
            ("[a-c]", "d"),
            ("[!a-c]", "b"),
            ("a*b", "ac"),
            ("", "a"),
        ];
        for (pattern, name) in no {
            assert!(!check(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        assert!(check(b"\xff?*", b"\xff\xfe\xfd"), "names that are not UTF-8");
    }

    #[test]
    fn many_stars_take_little_time() {
        assert!(!check(&[b"*a".repeat(100), b"b".to_vec()].concat(), &b"a".repeat(10_000)));
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[-a\\]\\[!*?é]{0,12}", name in "[-a\\]\\[!é]{0,12}") {
            let starred = [pattern.as_bytes(), b"*"].concat();
            prop_assert!(!check(pattern.as_bytes(), name.as_bytes()) || check(&starred, name.as_bytes()));
        }
    }
}
