//! Classes of severity: what `shed` goes by.
//!
//! The severity in a frame's header is that of its gravest record. Where records of several classes share a block, the
//! three bits that the number leaves unused say what the lowest class in it is, plus one, and the frame behind it
//! ([`Kind::Classes`](super::Kind)) which record is of which: a byte for each run of up to 32 records of a class. To a
//! version that knows no such frames it is one that was shed, with bytes to step over.

use super::Kind;
use super::types::NewBlock;

/// Numbers in one of OpenTelemetry's ranges of severity: TRACE, DEBUG, INFO, WARN, ERROR, FATAL.
const NUMBERS_PER_CLASS: u8 = 4;
/// What is not known to be less or more is INFO, as are data points and spans.
const UNKNOWN_IS: u8 = 9;
/// The highest number there is (OpenTelemetry, "Field: `SeverityNumber`").
const NUMBER_MAX: u8 = 24;
/// Bits of a number, and of the class in a byte of runs.
const NUMBER_BITS: u8 = 5;
const CLASS_BITS: u8 = 3;
const RUN_MAX_RECORDS: usize = 1 << (8 - CLASS_BITS);

/// The class of a severity number (OpenTelemetry, "Field: `SeverityNumber`"), 0 for TRACE to 5 for FATAL. Records of a
/// class are shed alike.
pub fn severity_class(number: u8) -> u8 {
    let number = if number == 0 { UNKNOWN_IS } else { number.min(NUMBER_MAX) };
    (number - 1) / NUMBERS_PER_CLASS
}

/// The severity number in what a frame's header says.
pub(super) fn number_of(severity: u8) -> u8 {
    severity & ((1 << NUMBER_BITS) - 1)
}

/// The class of the gravest record, by what a header says.
pub(super) fn gravest(severity: u8) -> u8 {
    severity_class(number_of(severity))
}

/// The class of the least severe record, by what a header says.
pub(super) fn lowest(severity: u8) -> u8 {
    (severity >> NUMBER_BITS).checked_sub(1).map_or(gravest(severity), |lowest| lowest.min(gravest(severity)))
}

/// What a header says of a block whose gravest record has this number, and whose least severe one is of class `lowest`.
pub(super) fn with_lowest(number: u8, lowest: u8) -> u8 {
    let number = number.min(NUMBER_MAX);
    if lowest < severity_class(number) { number | (lowest + 1) << NUMBER_BITS } else { number }
}

/// Classes of records one after another, as they stand on disk.
pub(super) fn encode(classes: &[u8]) -> Vec<u8> {
    let runs = classes.chunk_by(|class, next| class == next);
    let runs = runs.flat_map(|run| run.chunks(RUN_MAX_RECORDS));
    runs.filter_map(|run| Some(run.first()? | ((run.len() - 1) as u8) << CLASS_BITS)).collect()
}

/// Reads what [`encode`] wrote; `None` if it is not about so many records.
pub(super) fn decode(bytes: &[u8], records: u32) -> Option<Vec<u8>> {
    let mut classes = Vec::new();
    for byte in bytes {
        let run = usize::from(byte >> CLASS_BITS) + 1;
        if classes.len() + run > records as usize {
            return None;
        }
        classes.resize(classes.len() + run, byte & ((1 << CLASS_BITS) - 1));
    }
    (classes.len() == records as usize).then_some(classes)
}

impl NewBlock {
    /// Says of which class each record is, where they are of several: in the header, and in the frame that is to be appended
    /// behind it.
    #[must_use]
    pub fn classify(&mut self, classes: &[u8]) -> Option<Self> {
        let lowest = classes.iter().min().copied()?;
        if lowest >= gravest(self.severity) || classes.len() != self.records as usize {
            return None;
        }
        self.severity = with_lowest(number_of(self.severity), lowest);
        let payload = encode(classes);
        Some(Self {
            kind: Kind::Classes,
            severity: 0,
            plain_len: payload.len() as u32,
            payload,
            // The checksum as well: it is about this block and no other.
            ..*self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_are_the_ranges_of_opentelemetry_and_the_unknown_is_ordinary() {
        let classes: Vec<u8> = (0..=24).map(severity_class).collect();
        assert_eq!(classes, [2, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5],);
        assert_eq!(severity_class(u8::MAX), 5);
    }

    #[test]
    fn a_header_says_the_gravest_and_the_lowest() {
        for number in 0..=24 {
            assert_eq!((number_of(number), lowest(number)), (number, severity_class(number)), "as before");
            for class in 0..6 {
                let said = with_lowest(number, class);
                let gravest = severity_class(number);
                assert_eq!((number_of(said), super::gravest(said)), (number, gravest));
                assert_eq!(lowest(said), class.min(gravest));
            }
        }
        for nonsense in 0..=u8::MAX {
            assert!(lowest(nonsense) <= gravest(nonsense) && gravest(nonsense) <= 5);
        }
    }

    #[test]
    fn a_block_of_one_class_says_what_it_said_before_there_were_classes() {
        for number in 0..=24 {
            assert_eq!(with_lowest(number, severity_class(number)), number);
        }
    }

    #[test]
    fn the_frame_behind_a_block_is_about_that_block_and_has_no_severity() {
        let mut block = NewBlock {
            kind: Kind::Block { joins: None },
            signal: crate::Signal::Logs,
            format: 1,
            severity: 17,
            events_end: 3,
            records: 3,
            plain_len: 100,
            plain_crc: 7,
            times: (1, 2),
            payload: vec![0; 50],
        };
        let behind = block.classify(&[1, 2, 4]).unwrap();
        assert_eq!((behind.kind, behind.severity, behind.records), (Kind::Classes, 0, 3));
        assert_eq!((behind.plain_len, behind.plain_crc, behind.payload.len()), (3, 7, 3));
        assert_eq!((number_of(block.severity), lowest(block.severity)), (17, 1));
    }

    proptest! {
        #[test]
        fn classes_survive_the_disk(runs in prop::collection::vec((0..6_u8, 1..80_usize), 0..20)) {
            let classes: Vec<u8> = runs.into_iter().flat_map(|(class, run)| vec![class; run]).collect();
            let bytes = encode(&classes);
            prop_assert!(bytes.len() <= classes.len());
            prop_assert_eq!(decode(&bytes, classes.len() as u32 + 1), None);
            prop_assert_eq!(decode(&bytes, classes.len() as u32), Some(classes));
        }

        #[test]
        fn no_bytes_are_about_more_records_than_there_are(bytes in prop::collection::vec(any::<u8>(), 0..40), records in 0..200_u32) {
            prop_assert!(decode(&bytes, records).is_none_or(|classes| classes.len() == records as usize));
        }
    }
}
