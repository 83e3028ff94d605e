//! Every target on the stable compiler: its corpus as it stands, then a bounded number of seeded changes of it.
//!
//! `FUZZ_RUNS` is how many changed inputs a target gets, `FUZZ_SEED` the first seed. An input that breaks a promise is left
//! in `target/fuzz/failures/`, and the same seed makes it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use portolan_fuzz::{TARGETS, Target};

mod mutate;

use mutate::Mutator;

/// Changed inputs of one target, unless the environment says otherwise.
const RUNS: u64 = 500_000;
/// Longest input.
const MAX_LEN: usize = 2048;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The committed inputs of a target, by name.
fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = root().join("corpus").join(target.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("can be listed").path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("can be read"))).collect()
}

/// Runs `input`; where a promise is broken, leaves it behind and says how to make it again.
fn run(target: &Target, input: &[u8], origin: &str) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.check)(input))) else { return };
    let folder = root().join("../target/fuzz/failures");
    std::fs::create_dir_all(&folder).expect("can be made");
    let path = folder.join(format!("{}-{}", target.name, origin.replace(['/', ' '], "-")));
    std::fs::write(&path, input).expect("can be written");
    eprintln!("target {}, {origin}: {}", target.name, String::from_utf8_lossy(input).escape_debug());
    eprintln!("the input is in {}; a copy in fuzz/corpus/{} keeps it as a case", path.display(), target.name);
    std::panic::resume_unwind(panic);
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    for (path, input) in &corpus {
        run(target, input, &path.file_name().expect("a file").to_string_lossy());
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let words = mutate::words(&std::fs::read_to_string(root().join("words.dict")).expect("can be read"));
    let first = from_environment("FUZZ_SEED", 1);
    for seed in first..first + from_environment("FUZZ_RUNS", RUNS) {
        let input = Mutator::new(seed, &inputs, &words, MAX_LEN).input();
        run(target, &input, &format!("FUZZ_SEED={seed}"));
    }
}

#[test]
fn scan() {
    replay("scan");
}

#[test]
fn rewrite() {
    replay("rewrite");
}

#[test]
fn sse() {
    replay("sse");
}

#[test]
fn token() {
    replay("token");
}

#[test]
fn header() {
    replay("header");
}

#[test]
fn session() {
    replay("session");
}

#[test]
fn every_target_is_replayed_and_has_a_way_in_for_libfuzzer() {
    let own = include_str!("replay.rs");
    let manifest = include_str!("../Cargo.toml");
    for Target { name, .. } in TARGETS {
        assert!(own.contains(&format!("replay(\"{name}\")")), "{name}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
    assert_eq!(std::fs::read_dir(root().join("fuzz_targets")).expect("can be listed").count(), TARGETS.len());
    assert_eq!(std::fs::read_dir(root().join("corpus")).expect("can be listed").count(), TARGETS.len());
}

#[test]
fn a_seed_makes_the_same_input_every_time() {
    let (inputs, words) = ([b"[1,2]".to_vec(), b"{}".to_vec()], [b"null".to_vec()]);
    let made = |seed| Mutator::new(seed, &inputs, &words, 64).input();
    assert!((0..500).all(|seed| made(seed) == made(seed) && made(seed).len() <= 64));
    assert!((0..500).map(made).collect::<std::collections::HashSet<_>>().len() > 200);
}
