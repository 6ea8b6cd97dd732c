//! `layers`: dependencies point one way, and two languages meet in one file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// A manifest and the crates of this repository that it may name.
const EDGES: [(&str, &[&str]); 13] = [
    ("plan", &[]),
    ("kernels", &[]),
    ("runtime", &["plan", "kernels"]),
    ("sensors", &["runtime"]),
    ("simulator", &["plan", "kernels", "runtime"]),
    ("stitch", &["plan", "kernels", "runtime", "simulator", "support"]),
    ("firmware", &["plan", "kernels", "runtime", "sensors"]),
    ("firmware/aarch64", &["kernels"]),
    ("tests/support", &["plan", "kernels", "runtime"]),
    ("tests", &["plan", "kernels", "runtime", "simulator", "stitch", "support"]),
    ("fuzz", &["kernels", "support"]),
    ("benches", &["plan", "kernels", "runtime"]),
    ("xtask", &[]),
];
/// Crates that must stay small: the crates from elsewhere that they may name.
const OUTSIDE: [(&str, &[&str]); 4] = [
    ("plan", &[]),
    ("kernels", &[]),
    ("runtime", &["bytemuck", "defmt", "heapless"]),
    ("sensors", &["embedded-hal", "embedded-hal-mock", "defmt"]),
];
/// The files that may name tract: import of ONNX, and the float judge.
const TRACT: [&str; 9] = [
    "stitch/src/import.rs",
    "stitch/src/import/attention.rs",
    "stitch/src/import/constant.rs",
    "stitch/src/import/elementwise.rs",
    "stitch/src/import/layers.rs",
    "stitch/src/import/movement.rs",
    "stitch/src/import/norm.rs",
    "stitch/src/float_judge.rs",
    "stitch/src/float_judge/proto.rs",
];
/// The one module that speaks both to `plan` and to `kernels`: start of its files' names.
const EXEC: &str = "runtime/src/exec";
/// The one file beside it that calls kernels: their stopwatch, which names no record.
const KERNEL_BENCH: &str = "benches/kernels.rs";
/// What everyone may name of `kernels`: which instruction set, how much scratch an operation needs, and the tests.
const CHOICE: [&str; 9] = [
    "Isa",
    "Level",
    "arch",
    "attention_scratch",
    "cases",
    "conv_scratch",
    "mix_scratch",
    "suppress_scratch",
    "with_isa",
];

/// The folders that may use `unsafe`.
const UNSAFE: [&str; 2] = ["kernels/src/arch/", "firmware/"];

/// Checks every manifest and every source file.
pub fn check() -> Result<()> {
    let mut broken = vec![];
    for (name, allowed) in EDGES {
        let found = dependencies(&Path::new(name).join("Cargo.toml"))?;
        let inside = |found: &str| EDGES.iter().any(|(path, _)| Path::new(path).ends_with(found));
        for dependency in found {
            let outside = OUTSIDE.iter().find(|(krate, _)| *krate == name).map(|(_, outside)| outside);
            let fits = if inside(&dependency) {
                allowed.contains(&dependency.as_str())
            } else {
                outside.is_none_or(|outside| outside.contains(&dependency.as_str()))
            };
            if !fits {
                broken.push(format!("{name}/Cargo.toml: {name} -> {dependency}"));
            }
        }
    }
    for (name, _) in EDGES {
        for path in sources(Path::new(name))? {
            let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            let path = path.to_string_lossy();
            // This file quotes what it looks for.
            if path == file!() {
                continue;
            }
            let vocabulary = !path.starts_with("kernels/") && !path.starts_with(EXEC) && path != KERNEL_BENCH;
            for (line, what) in findings(&text, vocabulary, !TRACT.contains(&&*path)) {
                broken.push(format!("{path}:{line}: {what}"));
            }
            if !UNSAFE.iter().any(|folder| path.starts_with(folder)) {
                let lines = (1..).zip(text.lines()).filter(|(_, line)| is_unsafe(line));
                broken.extend(
                    lines.map(|(line, _)| format!("{path}:{line}: unsafe is for {} only", UNSAFE.join(" and "))),
                );
            }
        }
    }
    broken.sort();
    broken.dedup();
    ensure!(broken.is_empty(), "{} edges that the architecture forbids:\n{}", broken.len(), broken.join("\n"));
    println!("layers: {} crates, no forbidden edge", EDGES.len());
    Ok(())
}

/// Names of all dependencies of a manifest, of every kind and target.
fn dependencies(manifest: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(manifest).with_context(|| format!("{}", manifest.display()))?;
    let table: toml::Table = text.parse().with_context(|| format!("{}", manifest.display()))?;
    let mut names = vec![];
    collect(&table, &mut names);
    if names.iter().any(|name| name.is_empty()) {
        bail!("{}: a dependency without name", manifest.display());
    }
    Ok(names)
}

fn collect(table: &toml::Table, names: &mut Vec<String>) {
    for (key, value) in table {
        let toml::Value::Table(inner) = value else { continue };
        if key.ends_with("dependencies") {
            // `name = { package = "real-name" }` hides nothing.
            let real = |(name, value): (&String, &toml::Value)| {
                value.get("package").and_then(toml::Value::as_str).unwrap_or(name).to_owned()
            };
            names.extend(inner.iter().map(real));
        } else if key == "target" || key.starts_with("cfg") || inner.keys().any(|key| key.ends_with("dependencies")) {
            collect(inner, names);
        }
    }
}

/// Rust files of a crate, without crates inside it and what builds left behind.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") && !path.join("Cargo.toml").exists() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// Lines of a source file that name what they may not.
fn findings(text: &str, vocabulary: bool, tract: bool) -> Vec<(usize, String)> {
    let mut found = vec![];
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if tract && code.contains("tract_onnx") {
            found.push((number + 1, "tract is named in import and float judge only".to_owned()));
        }
        for (at, marker) in code.match_indices("kernels::").filter(|_| vocabulary) {
            let rest = &code[at + marker.len()..];
            for name in named(rest).into_iter().filter(|name| !CHOICE.contains(&name.as_str())) {
                found.push((number + 1, format!("kernels::{name} is named in {EXEC} only")));
            }
        }
    }
    found
}

/// Whether a line uses `unsafe`: neither as a part of a longer word, nor in a comment or a text.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    // Every second part lies between quotes.
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.split('"').step_by(2).flat_map(|code| code.split(|letter| !part(letter))).any(|word| word == "unsafe")
}

/// First names of a path or of a list in braces.
fn named(rest: &str) -> Vec<String> {
    let word = |text: &str| {
        let text = text.trim();
        text.chars().take_while(|&letter| letter.is_alphanumeric() || letter == '_').collect::<String>()
    };
    match rest.strip_prefix('{') {
        Some(list) => {
            list.split('}').next().unwrap_or_default().split(',').map(word).filter(|name| !name.is_empty()).collect()
        }
        None => vec![word(rest)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_vocabulary_of_kernels() {
        let found = findings("use kernels::{Isa, Conv};\nkernels::arch::Scalar // kernels::add\n", true, true);
        assert_eq!(found, [(1, format!("kernels::Conv is named in {EXEC} only"))]);
        assert!(findings("use kernels::Conv;", false, true).is_empty());
    }

    #[test]
    fn finds_unsafe_code() {
        assert!(is_unsafe("    let x = unsafe { y() };"));
        assert!(!is_unsafe("#![forbid(unsafe_code)] // unsafe"));
        assert!(!is_unsafe("let text = \"unsafe\";"));
    }

    #[test]
    fn finds_dependencies_of_every_kind() {
        let text = "[dependencies]\na = \"1\"\n[dev-dependencies.b]\npath = \"x\"\n\
                    [target.'cfg(unix)'.dependencies]\nc = { package = \"real\", version = \"1\" }";
        let mut names = vec![];
        collect(&text.parse().expect("a table"), &mut names);
        names.sort();
        assert_eq!(names, ["a", "b", "real"]);
    }
}
