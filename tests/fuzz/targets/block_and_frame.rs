#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outlast_fuzz_oracles::block_and_frame::check(data));
