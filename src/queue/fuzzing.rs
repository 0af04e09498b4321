//! The frame header for the fuzz targets (`tests/fuzz`). Behind the feature `fuzzing`, which changes nothing else, so
//! that headers stay private to the queue.

use super::frame::{HEADER_BYTES, Header};

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader(Header);

impl FrameHeader {
    /// Reads a header; `None` if it is not whole.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        Header::decode(bytes).map(Self)
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        self.0.encode()
    }

    /// Length of header and payload, in bytes.
    pub fn frame_len(&self) -> u64 {
        self.0.frame_len()
    }
}
