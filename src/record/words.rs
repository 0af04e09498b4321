//! Eight bytes at a time: what text is made of, told from a word instead of byte by byte.
//!
//! Our own code is built for size, so a loop over bytes stays one, at some six instructions a byte, and the forms that are looked
//! for in every line are short of what makes a search by vectors worth its call. Words are little-endian, so that the first
//! byte of a text is the lowest.

/// `byte` in each place.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The highest bit of each place.
const HIGH: u64 = each(0x80);

/// The first place of `word` that has `byte`, which is below 0x80.
pub(super) const fn first(byte: u8, word: u64) -> Option<usize> {
    let word = word ^ each(byte);
    // Places behind the first may be marked by its borrow; the first is right.
    let found = word.wrapping_sub(each(1)) & !word & HIGH;
    if found == 0 { None } else { Some(found.trailing_zeros() as usize / 8) }
}

/// Eight bytes of which those that are `0` may be any digit.
#[derive(Clone, Copy)]
pub(super) struct Form {
    text: u64,
    /// All bits of the places that are no digits.
    given: u64,
}

impl Form {
    pub(super) const fn of(text: [u8; 8]) -> Self {
        let text = u64::from_le_bytes(text);
        let mut given = 0;
        let mut place = 0xff;
        while place != 0 {
            if (text ^ each(b'0')) & place != 0 {
                given |= place;
            }
            place <<= 8;
        }
        Self { text, given }
    }

    /// What the digits of `word` count, each in its place. `None` if it has another form.
    pub(super) fn digits(self, word: u64) -> Option<[u8; 8]> {
        // A zero is all that digits have in their high halves.
        let rest = word ^ self.text;
        (at_most(9, rest) && rest & self.given == 0).then(|| rest.to_le_bytes())
    }

    /// Whether `word` has this form with hexadecimal digits.
    pub(super) const fn is_hexadecimal(self, word: u64) -> bool {
        (word ^ self.text) & self.given == 0 && are_hexadecimal(word & !self.given | each(b'0') & self.given)
    }
}

/// Whether every place of `word` is at most `most`, which is below 0x80.
const fn at_most(most: u8, word: u64) -> bool {
    // A place above 0x7f may carry into the next, and is too much itself.
    (word.wrapping_add(each(0x7f - most)) | word) & HIGH == 0
}

/// Whether every place of `word` is a hexadecimal digit.
const fn are_hexadecimal(word: u64) -> bool {
    // Neither does a sum carry that way, nor does it matter what the places are if one of them is above 0x7f.
    let lower = word | each(0x20);
    let digits = word.wrapping_add(each(0x80 - b'0')) & !word.wrapping_add(each(0x7f - b'9'));
    let letters = lower.wrapping_add(each(0x80 - b'a')) & !lower.wrapping_add(each(0x7f - b'f'));
    word & HIGH == 0 && (digits | letters) & HIGH == HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_word_says_what_its_bytes_say(bytes in prop_oneof![any::<[u8; 8]>(), prop::array::uniform8(b'.'..=b'h'), prop::array::uniform8(0..12_u8)], byte in 0..0x80_u8) {
            let word = u64::from_le_bytes(bytes);
            prop_assert_eq!(first(byte, word), bytes.iter().position(|one| *one == byte));
            prop_assert_eq!(first(bytes[5] & 0x7f, word), bytes.iter().position(|one| *one == bytes[5] & 0x7f));
            prop_assert_eq!(at_most(byte, word), bytes.iter().all(|one| *one <= byte));
            prop_assert_eq!(at_most(9, word), bytes.iter().all(|one| *one <= 9));
            prop_assert_eq!(are_hexadecimal(word), bytes.iter().all(u8::is_ascii_hexdigit));
        }
    }

    proptest! {
        #[test]
        fn a_form_is_kept_to(text in "[0-9a-g]{2}[:;][0-9a-g]-[0-9a-g]{3}") {
            let word = u64::from_le_bytes(text.as_bytes().try_into().unwrap());
            let form = Form::of(*b"00:0-000");
            let others = text.replace([':', '-'], "");
            let fits = text.contains(':');
            prop_assert_eq!(form.is_hexadecimal(word), fits && others.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let counts = form.digits(word).map(|digits| [0, 1, 3, 5, 6, 7].map(|place: usize| digits[place]));
            let expected: Option<Vec<_>> = others.chars().map(|digit| digit.to_digit(10)).collect();
            prop_assert_eq!(counts.map(|counts| counts.map(u32::from).to_vec()), expected.filter(|_| fits));
        }
    }

    #[test]
    fn each_byte_is_a_hexadecimal_digit_or_not_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                let mut bytes = *b"0f9aAF00";
                bytes[place] = byte;
                assert_eq!(
                    are_hexadecimal(u64::from_le_bytes(bytes)),
                    byte.is_ascii_hexdigit(),
                    "{byte} at {place}"
                );
            }
        }
    }
}
