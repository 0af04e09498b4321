//! The `outlast` extension.
fn main() {}
