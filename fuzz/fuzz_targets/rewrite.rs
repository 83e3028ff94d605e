//! libFuzzer's way into `portolan_fuzz::rewrite`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_fuzz::rewrite::check(data));
