//! libFuzzer's way into `portolan_fuzz::header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_fuzz::header::check(data));
