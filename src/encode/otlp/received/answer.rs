//! What a sender of OTLP/HTTP is answered, in the media type it used (OTLP specification, "OTLP/HTTP Response").

use super::super::super::protobuf::{Wire, bytes, tag, varint};
use super::Media;

/// A code of `google.rpc.Code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is wrong.
    InvalidArgument = 3,
    /// It asks for too much.
    ResourceExhausted = 8,
    /// Nothing of the kind is done here.
    Unimplemented = 12,
    /// Not now.
    Unavailable = 14,
}

impl Media {
    /// The media type's name.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    /// The media type that a `Content-Type` names, whatever its parameters say.
    pub fn of_content_type(value: &str) -> Option<Self> {
        let name = value.split(';').next().unwrap_or_default().trim();
        [Self::Protobuf, Self::Json].into_iter().find(|media| name.eq_ignore_ascii_case(media.content_type()))
    }

    /// An `Export…ServiceResponse` that says that everything was accepted: an empty message, for all three signals.
    pub const fn accepted(self) -> &'static [u8] {
        match self {
            Self::Protobuf => b"",
            Self::Json => b"{}",
        }
    }

    /// A `google.rpc.Status`.
    pub fn status(self, code: Code, text: &str) -> Vec<u8> {
        match self {
            Self::Protobuf => {
                let mut out = Vec::with_capacity(text.len() + 6);
                tag(1, Wire::Varint, &mut out);
                varint(code as u64, &mut out);
                bytes(2, text.as_bytes(), &mut out);
                out
            }
            Self::Json => serde_json::json!({"code": code as u8, "message": text}).to_string().into_bytes(),
        }
    }
}
