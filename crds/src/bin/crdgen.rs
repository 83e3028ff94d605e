//! Writes the CRDs as YAML, or says how the committed files differ from the types.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

const USAGE: &str = "usage: crdgen               print the CRDs
       crdgen --out DIR     write them to DIR, one file per kind
       crdgen --check DIR   exit 1 when the files in DIR differ from the types";

enum Command {
    Print,
    Write(PathBuf),
    Check(PathBuf),
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{USAGE}")]
    Usage,
    #[error(transparent)]
    Render(#[from] portolan_crds::RenderError),
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error(
        "{0} differs from the types: run `cargo run -p portolan-crds --bin crdgen -- --out {1}` and commit the result"
    )]
    Drift(PathBuf, PathBuf),
}

fn main() -> ExitCode {
    match parse().and_then(|command| run(&command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::from(if matches!(error, Error::Usage) { 2 } else { 1 })
        }
    }
}

fn parse() -> Result<Command, Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Ok(Command::Print),
        ["--out", directory] => Ok(Command::Write(directory.into())),
        ["--check", directory] => Ok(Command::Check(directory.into())),
        _ => Err(Error::Usage),
    }
}

fn run(command: &Command) -> Result<(), Error> {
    for (file, crd) in portolan_crds::crds() {
        let yaml = portolan_crds::render(&crd)?;
        match command {
            Command::Print => print!("---\n{yaml}"),
            Command::Write(directory) => write(directory, file, &yaml)?,
            Command::Check(directory) => check(directory, file, &yaml)?,
        }
    }
    Ok(())
}

fn write(directory: &Path, file: &str, yaml: &str) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|error| Error::File(directory.to_owned(), error))?;
    let path = directory.join(file);
    fs::write(&path, yaml).map_err(|error| Error::File(path, error))
}

fn check(directory: &Path, file: &str, yaml: &str) -> Result<(), Error> {
    let path = directory.join(file);
    let committed = fs::read_to_string(&path).map_err(|error| Error::File(path.clone(), error))?;
    if committed == yaml { Ok(()) } else { Err(Error::Drift(path, directory.to_owned())) }
}
