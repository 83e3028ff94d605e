//! libFuzzer's way into `portolan_fuzz::sse`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_fuzz::sse::check(data));
