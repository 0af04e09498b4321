#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outlast_fuzz_oracles::open_queue::check(data));
