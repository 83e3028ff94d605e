//! The commands that need no server.

mod support;

use portolan_policy::api_key::Hash;
use support::{assert_exit, run, stderr, stdout};

#[test]
fn every_shell_gets_completions_that_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completion", shell]);
        assert_exit(&output, 0);
        let script = stdout(&output);
        for word in ["dev", "tools", "call", "apikey", "crds", "--args-json", "--listen"] {
            assert!(script.contains(word.trim_start_matches('-')), "{shell}: {word}");
        }
        assert!(!script.contains("demo-server"), "{shell}: hidden commands stay hidden");
    }
    assert_exit(&run(&["completion", "tcsh"]), 1);
}

#[test]
fn bash_completes_a_command_with_the_script() {
    let script = stdout(&run(&["completion", "bash"]));
    let program = format!(
        "{script}\nCOMP_WORDS=(portolan de); COMP_CWORD=1; _portolan portolan de portolan; echo \"${{COMPREPLY[@]}}\""
    );
    let output = std::process::Command::new("bash").args(["-c", &program]).output().expect("bash");
    let words = stdout(&output);
    assert!(words.split_whitespace().any(|word| word == "dev"), "{words}{}", stderr(&output));
}

#[test]
fn a_minted_key_is_shown_once_and_the_secret_holds_its_hash_alone() {
    let output = run(&["apikey", "--subject", "alice", "--secret", "keys", "--namespace", "platform"]);
    assert_exit(&output, 0);
    let told = stderr(&output);
    let key = told.split_whitespace().find(|word| word.starts_with("ptl_")).expect("the key");
    let yaml = stdout(&output);
    assert!(!yaml.contains(key));
    assert!(yaml.contains(&format!("  \"alice\": \"{}\"\n", Hash::of(key))), "{yaml}");
    let secret: serde_json::Value = serde_saphyr::from_str(&yaml).expect("YAML");
    assert_eq!((&secret["kind"], &secret["metadata"]["namespace"]), (&"Secret".into(), &"platform".into()));
    for refused in [["--subject", "a b"], ["--secret", "Keys"], ["--namespace", "a.b"]] {
        assert_exit(&run(&["apikey", refused[0], refused[1]]), 1);
    }
    let subject = stdout(&run(&["apikey", "--subject", "1e3"]));
    let secret: serde_json::Value = serde_saphyr::from_str(&subject).expect("YAML");
    assert!(secret["stringData"]["1e3"].is_string(), "a name that looks like a number stays as it is: {subject}");
}

#[test]
fn the_crds_are_those_that_are_committed() {
    let output = run(&["crds"]);
    assert_exit(&output, 0);
    let generated = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/generated");
    let mut committed: Vec<_> =
        std::fs::read_dir(generated).expect("generated").flatten().map(|entry| entry.path()).collect();
    committed.sort();
    assert!(!committed.is_empty());
    for file in committed {
        let crd: serde_json::Value =
            serde_saphyr::from_str(&std::fs::read_to_string(&file).expect("reads")).expect("YAML");
        let printed: Vec<serde_json::Value> = serde_saphyr::from_multiple(&stdout(&output)).expect("YAML");
        assert!(printed.contains(&crd), "{}", file.display());
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in ["dev", "tools", "call", "apikey", "crds", "completion", "operator", "gateway", "version"] {
        let output = run(&[command, "--help"]);
        assert_exit(&output, 0);
        let text = stdout(&output);
        assert!(text.contains("Example") && text.contains(&format!("portolan {command}")), "{command}: {text}");
    }
    assert_exit(&run(&["--help"]), 0);
    assert_exit(&run(&["--version"]), 0);
    assert!(stdout(&run(&["version"])).starts_with("portolan "));
    assert_exit(&run(&["no-such-command"]), 1);
    assert_exit(&run(&[]), 1);
}
