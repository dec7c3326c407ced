//! Text fields: fixed-width ASCII (Base §1.4, SN, MN and FR) and NVMe Qualified Names (Base §4.5).

/// Longest NVMe Qualified Name in bytes (Base §4.5).
pub const NQN_MAX: usize = 223;

/// Text that does not go in a fixed-width ASCII field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AsciiError {
    /// The text is longer than the field.
    #[error("{length} characters do not fit in a field of {width}: shorten the text")]
    TooLong {
        /// Bytes of the text.
        length: usize,
        /// Bytes of the field.
        width: usize,
    },
    /// The text has a character outside 20h to 7Eh.
    #[error("character {character:?} at position {position} is not printable ASCII (20h to 7Eh): remove it")]
    NotPrintable {
        /// The character.
        character: char,
        /// Its place in characters, from 0.
        position: usize,
    },
}

/// A string that is not an NVMe Qualified Name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NqnError {
    /// The name is longer than [`NQN_MAX`] bytes.
    #[error("an NQN has at most 223 bytes, this one has {length}: shorten it")]
    TooLong {
        /// Bytes of the name.
        length: usize,
    },
    /// The name does not begin with "nqn.yyyy-mm.", a year and a month.
    #[error(
        "an NQN begins with \"nqn.\", a year and a month, such as nqn.2014-08.org.nvmexpress: correct {nqn:?}"
    )]
    Prefix {
        /// The name.
        nqn: String,
    },
    /// No reverse domain name follows the date.
    #[error("an NQN has a reverse domain name after its date, such as org.nvmexpress: correct {nqn:?}")]
    Domain {
        /// The name.
        nqn: String,
    },
    /// The name has a control character; a zero byte would end it on the wire.
    #[error("an NQN has no control characters: remove the one at byte {position}")]
    Control {
        /// Its place in bytes, from 0.
        position: usize,
    },
}

/// `text` in a field of `N` bytes: left justified, padded with spaces (Base §1.4).
///
/// # Errors
/// [`AsciiError`] when the text does not fit or is not printable ASCII.
pub fn ascii_field<const N: usize>(text: &str) -> Result<[u8; N], AsciiError> {
    if let Some((position, character)) = text.chars().enumerate().find(|(_, c)| !matches!(c, ' '..='~')) {
        return Err(AsciiError::NotPrintable { character, position });
    }
    let mut field = [b' '; N];
    let room = field.get_mut(..text.len()).ok_or(AsciiError::TooLong { length: text.len(), width: N })?;
    room.copy_from_slice(text.as_bytes());
    Ok(field)
}

/// The text of a fixed-width field, for people: padding (spaces or zeroes) removed, what is not ASCII replaced.
pub fn ascii_text(field: &[u8]) -> String {
    let text: String = field
        .iter()
        .map(|&byte| {
            if matches!(byte, b' '..=b'~') {
                char::from(byte)
            } else if byte == 0 {
                ' '
            } else {
                '?'
            }
        })
        .collect();
    text.trim_end().to_owned()
}

/// Checks an NVMe Qualified Name: `nqn.yyyy-mm.reverse-domain[:anything]` (Base §4.5).
///
/// # Errors
/// [`NqnError`] tells which rule the name breaks.
pub fn validate_nqn(nqn: &str) -> Result<(), NqnError> {
    if nqn.len() > NQN_MAX {
        return Err(NqnError::TooLong { length: nqn.len() });
    }
    if let Some((position, _)) = nqn.char_indices().find(|(_, c)| c.is_control()) {
        return Err(NqnError::Control { position });
    }
    let dated = nqn.strip_prefix("nqn.").and_then(after_date);
    let rest = dated.ok_or_else(|| NqnError::Prefix { nqn: nqn.to_owned() })?;
    let domain = rest.split(':').next().unwrap_or_default();
    if domain.split('.').any(str::is_empty) {
        return Err(NqnError::Domain { nqn: nqn.to_owned() });
    }
    Ok(())
}

/// What follows `yyyy-mm.`, when `text` begins so with a month that exists.
fn after_date(text: &str) -> Option<&str> {
    let (date, rest) = text.split_once('.')?;
    let (year, month) = date.split_once('-')?;
    let digits = |part: &str, count: usize| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
    let month_exists = matches!(month.parse(), Ok(1u8..=12));
    (digits(year, 4) && digits(month, 2) && month_exists).then_some(rest)
}

/// `nqn` in a field of 256 bytes, padded with zeroes (Base §4.5).
///
/// # Errors
/// [`NqnError`] when [`validate_nqn`] refuses it.
pub fn nqn_field(nqn: &str) -> Result<[u8; 256], NqnError> {
    validate_nqn(nqn)?;
    let mut field = [0; 256];
    for (to, from) in field.iter_mut().zip(nqn.bytes()) {
        *to = from;
    }
    Ok(field)
}

/// The name in a zero-padded field; `None` when it is not UTF-8. It is not validated further.
pub fn nqn_text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    core::str::from_utf8(field.get(..end)?).ok()
}
