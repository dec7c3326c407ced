//! Sizes, for people and for backends.
//!
//! May know: numbers and suffixes. Must not know: what has the size.

use crate::error::BackendError;

/// Smallest block that the backends here serve: the smallest LBA data size of NVMe (NVM Command Set 1.1 §4.1.5.1,
/// LBADS 9).
pub(crate) const MIN_BLOCK: u32 = 512;

/// The block size that memory serves best, for a backend of that size: a page, if the size is whole pages.
pub(crate) fn blocks_for(size: u64) -> u32 {
    if size.is_multiple_of(4096) { 4096 } else { MIN_BLOCK }
}

/// Suffixes and the power of two that each stands for.
const SUFFIXES: [(char, u32); 6] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50), ('E', 60)];

/// Parses a size: digits, then nothing or one of K, M, G, T, P, E (powers of 1024; `KiB` or `KB` say the same; either
/// case).
///
/// # Errors
/// One sentence that says what is wrong.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, suffix) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("{text:?} is not a size: use whole numbers such as 4096, 512M, 10G or 1T"));
    }
    let mut letters = suffix.chars();
    let shift = match letters.next() {
        None => 0,
        Some(first) => {
            let rest = letters.as_str();
            let plain = rest.is_empty() || rest.eq_ignore_ascii_case("ib") || rest.eq_ignore_ascii_case("b");
            SUFFIXES
                .iter()
                .find(|(letter, _)| plain && first.eq_ignore_ascii_case(letter))
                .map(|(_, shift)| *shift)
                .ok_or_else(|| {
                    format!("{text:?} is not a size: after the whole number comes one of K, M, G, T, P, E or nothing")
                })?
        }
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| format!("{text:?} is too large: a backend has less than 8E"))
}

/// A size in the words of [`parse_size`]: the largest suffix that leaves a whole number.
#[must_use]
pub(crate) fn exact(bytes: u64) -> String {
    let fitting =
        SUFFIXES.iter().rev().find(|(_, shift)| bytes >> shift > 0 && bytes.trailing_zeros() >= *shift);
    match fitting {
        Some((letter, shift)) => format!("{}{letter}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// Checks a block size and a size of a whole backend.
pub(crate) fn check_size(what: &str, size: u64, block_size: u32) -> Result<(), BackendError> {
    let refuse = |why: String| Err(BackendError::Size { what: what.to_owned(), why });
    if !block_size.is_power_of_two() || block_size < MIN_BLOCK {
        return refuse(format!("block size {block_size} is not a power of two of at least {MIN_BLOCK}"));
    }
    if size == 0 {
        return refuse("the size is zero: give it at least one block".to_owned());
    }
    if i64::try_from(size).is_err() {
        return refuse("the size is too large: less than 8E is possible".to_owned());
    }
    if !size.is_multiple_of(u64::from(block_size)) {
        let whole = size - size % u64::from(block_size);
        return refuse(format!(
            "the size of {size} bytes is not a multiple of the block size {block_size}: \
             make it {} bytes, or choose another block size",
            whole.saturating_add(u64::from(block_size))
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_suffixes() {
        let cases = [
            ("4096", 4096),
            ("1k", 1024),
            ("512M", 512 << 20),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("10gb", 10 << 30),
            ("1T", 1 << 40),
            ("7E", 7 << 60),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_by_name() {
        for text in [
            "",
            "G",
            "10X",
            "1.5G",
            "-1",
            " 1",
            "1 G",
            "10Gi",
            "10GG",
            "0x10",
            "8E",
            "99999999999999999999",
            "１",
        ] {
            let why = parse_size(text).unwrap_err();
            assert!(why.starts_with(&format!("{text:?}")), "{why}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_size_or_an_error(text in ".{0,24}") {
            let _ = parse_size(&text);
        }

        #[test]
        fn what_is_written_is_parsed_as_the_same_size(bytes in 0..i64::MAX as u64) {
            proptest::prop_assert_eq!(parse_size(&exact(bytes)), Ok(bytes));
        }
    }
}
