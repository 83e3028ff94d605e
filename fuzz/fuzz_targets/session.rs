//! libFuzzer's way into `portolan_fuzz::session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_fuzz::session::check(data));
