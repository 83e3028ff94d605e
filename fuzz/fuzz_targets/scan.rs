//! libFuzzer's way into `portolan_fuzz::scan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_fuzz::scan::check(data));
