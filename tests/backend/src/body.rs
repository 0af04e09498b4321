//! A request's body: as it came, and as what it turns out to be.

use bytes::Bytes;

use crate::{
    dialect::Dialect,
    gzip,
    received::Request,
    record::{Record, Signal},
    script::BodyFacts,
};

/// A request's body as received.
pub(crate) struct Body {
    pub(crate) wire: Bytes,
    pub(crate) gzip: bool,
}

impl Body {
    /// The plain length and the records, or what is wrong.
    pub(crate) fn decode(
        &self,
        dialect: Dialect,
        signal: Signal,
        number: u64,
    ) -> Result<(usize, Vec<Record>), String> {
        let plain = self.plain().map_err(|error| error.to_string())?;
        let plain: &[u8] = plain.as_deref().unwrap_or(&self.wire);
        Ok((plain.len(), dialect.records(signal, number, plain)?))
    }

    /// Inflated, if it has to be.
    fn plain(&self) -> Result<Option<Vec<u8>>, gzip::GzipError> {
        self.gzip.then(|| gzip::decode(&self.wire)).transpose()
    }
}

/// A body that was read, and its records once something asked for them.
pub(crate) struct Arrived {
    pub(crate) body: Body,
    pub(crate) decoded: Option<Result<(usize, Vec<Record>), String>>,
}

impl Arrived {
    pub(crate) fn facts(&self) -> BodyFacts<'_> {
        let decoded = self.decoded.as_ref();
        // A body that cannot be decoded has no records; the leaf that would keep them refuses it.
        let (plain_bytes, records) = match decoded {
            Some(Ok((plain_bytes, records))) => (Some(*plain_bytes), Some(records.as_slice())),
            Some(Err(_)) => (Some(0), Some(Default::default())),
            None => ((!self.body.gzip).then_some(self.body.wire.len()), None),
        };
        BodyFacts { wire_bytes: self.body.wire.len(), plain_bytes, records }
    }
}

/// Writes down what decoding a body found.
pub(crate) fn note(request: &mut Request, decoded: &Result<(usize, Vec<Record>), String>) {
    match decoded {
        Ok((plain_bytes, records)) => {
            (request.plain_bytes, request.records) = (*plain_bytes, records.len());
        }
        Err(defect) => request.defect = Some(defect.clone()),
    }
}
