//! The protobuf wire format, as much as OTLP takes: varints, fixed-width numbers, length-delimited fields.
//!
//! Written canonically: varints as short as possible, fields in ascending order, defaults left out.

/// A field's wire type (Protocol Buffers documentation, "Encoding").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Len = 2,
    Fixed32 = 5,
}

/// Appends a varint: seven bits to a byte, lowest first.
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`varint`] takes for `value`.
pub(super) const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// A field's number and wire type where they are one byte: of fields up to 15, which are nearly all.
const fn short_tag(field: u32, wire: Wire) -> u8 {
    (field << 3) as u8 | wire as u8
}

/// Appends a field's number and wire type.
pub(super) fn tag(field: u32, wire: Wire, out: &mut Vec<u8>) {
    if field < 16 {
        return out.push(short_tag(field, wire));
    }
    varint((u64::from(field) << 3) | wire as u64, out);
}

/// Appends a field of bytes or text.
pub(super) fn bytes(field: u32, value: &[u8], out: &mut Vec<u8>) {
    // Nearly all of them: tag and length are a byte each.
    if field < 16 && value.len() < 0x80 {
        out.extend_from_slice(&[short_tag(field, Wire::Len), value.len() as u8]);
        return out.extend_from_slice(value);
    }
    tag(field, Wire::Len, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Appends a field that is a message of one field, of text or bytes.
pub(super) fn bytes_within(field: u32, inner: u32, value: &[u8], out: &mut Vec<u8>) {
    let inner_len = |tag_len| tag_len + varint_len(value.len() as u64) + value.len();
    if field < 16 && inner < 16 && inner_len(1) < 0x80 {
        let (outer, within) = (short_tag(field, Wire::Len), short_tag(inner, Wire::Len));
        out.extend_from_slice(&[outer, inner_len(1) as u8, within, value.len() as u8]);
        return out.extend_from_slice(value);
    }
    // The length is known: nothing is moved.
    tag(field, Wire::Len, out);
    varint(inner_len(varint_len(u64::from(inner) << 3)) as u64, out);
    bytes(inner, value, out);
}

/// Appends a field of 64 bits.
pub(super) fn fixed64(field: u32, value: u64, out: &mut Vec<u8>) {
    tag(field, Wire::Fixed64, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of 32 bits.
pub(super) fn fixed32(field: u32, value: u32, out: &mut Vec<u8>) {
    tag(field, Wire::Fixed32, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field holding a message that `write` appends.
///
/// One byte is kept for the length; what a longer length needs is made room for afterwards. Most messages are
/// shorter than 128 bytes, and moving the others costs less than measuring each message before writing it.
pub(super) fn message(field: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    tag(field, Wire::Len, out);
    out.push(0);
    let start = out.len();
    let length_at = start - 1;
    write(out);
    let length = out.len() - start;
    if length < 0x80 {
        if let Some(byte) = out.get_mut(length_at) {
            *byte = length as u8;
        }
        return;
    }
    let more = varint_len(length as u64) - 1;
    let end = out.len();
    out.resize(end + more, 0);
    out.copy_within(start..end, start + more);
    let mut rest = length as u64;
    for byte in out.iter_mut().skip(length_at).take(more + 1) {
        *byte = (rest as u8 & 0x7f) | 0x80;
        rest >>= 7;
    }
    if let Some(last) = out.get_mut(length_at + more) {
        *last &= 0x7f;
    }
}

/// Reads a varint at `at`; returns it and where it ends. `None` if the bytes end first or it is over 64 bits.
pub(super) fn read_varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.get(at..)?.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some((value, at + index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_of_any_length_gets_the_shortest_length() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, 2_097_151, 2_097_152] {
            let content = vec![b'x'; length];
            let (mut written, mut expected) = (b"before".to_vec(), b"before".to_vec());
            message(2, &mut written, |out| out.extend_from_slice(&content));
            bytes(2, &content, &mut expected);
            assert!(written == expected, "length {length}");
        }
    }

    #[test]
    fn bytes_within_a_message_are_a_message_of_bytes() {
        for length in [0, 1, 123, 125, 126, 127, 128, 16_381, 16_384] {
            for (field, inner) in [(1, 1), (15, 15), (16, 1), (1, 16), (200, 3000)] {
                let content = vec![b'x'; length];
                let (mut written, mut expected) = (b"before".to_vec(), b"before".to_vec());
                bytes_within(field, inner, &content, &mut written);
                message(field, &mut expected, |out| bytes(inner, &content, out));
                assert!(written == expected, "{length} bytes, {field}, {inner}");
            }
        }
    }

    #[test]
    fn a_varint_that_is_cut_or_too_long_is_refused() {
        assert_eq!(read_varint(&[], 0), None);
        assert_eq!(read_varint(&[0x80], 0), None);
        assert_eq!(read_varint(&[1], 2), None);
        assert_eq!(read_varint(&[0xff; 11], 0), None);
        assert_eq!(read_varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], 0), None);
    }

    proptest! {
        #[test]
        fn varints_read_as_prost_reads_them(value: u64, bits in 0..64_u32) {
            let value = value >> bits;
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            varint(value, &mut ours);
            prost::encoding::encode_varint(value, &mut theirs);
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(varint_len(value), ours.len());
            prop_assert_eq!(read_varint(&ours, 0), Some((value, ours.len())));
        }
    }
}
