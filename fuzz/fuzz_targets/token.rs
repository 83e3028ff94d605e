//! libFuzzer's way into `portolan_fuzz::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_fuzz::token::check(data));
