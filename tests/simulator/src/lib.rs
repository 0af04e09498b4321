//! A simulated AWS Lambda sandbox.
