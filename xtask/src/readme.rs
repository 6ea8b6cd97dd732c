//! `readme`: the tables of README.md, from the files and the image that they describe.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::qemu::stitchnet;

const README: &str = "README.md";

/// Writes the tables of a bundled family. `image` is scored on all 2,000 test images; `beside` are images of that family whose
/// stitches were learned in different ways, to set side by side.
pub fn write(family: &str, image: &str, beside: &[&str]) -> Result<()> {
    let text = fs::read_to_string(README).context(README)?;
    let anchors = format!("models/{family}/anchors.md");
    let anchors = fs::read_to_string(&anchors).with_context(|| format!("{anchors}; models/recipe writes it"))?;
    let text = replaced(README, &text, &format!("{family} anchors"), &anchors)?;
    let table = output(stitchnet().args(["report", image, "--markdown"]))?;
    let text = replaced(README, &text, &format!("{family} configs"), &table)?;
    let text = match beside {
        [] => text,
        [first, others @ ..] => {
            let others = others.iter().flat_map(|other| ["--beside", *other]);
            replaced(
                README,
                &text,
                &format!("{family} curves"),
                &output(stitchnet().args(["report", first]).args(others))?,
            )?
        }
    };
    fs::write(README, text).context(README)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context("cargo cannot be started")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// `text` with what lies between the two comments of `name` replaced.
pub fn replaced(file: &str, text: &str, name: &str, table: &str) -> Result<String> {
    let [begin, end] = ["begin", "end"].map(|side| format!("<!-- {name}: {side} -->\n"));
    let missing = || format!("{file} has no line `{}`", begin.trim_end());
    let (before, rest) = text.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    Ok(format!("{before}{begin}\n{table}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn only_the_table_changes() {
        let text = "a\n<!-- t: begin -->\nold\n<!-- t: end -->\nb\n";
        assert_eq!(
            replaced("file", text, "t", "new\n").unwrap(),
            "a\n<!-- t: begin -->\n\nnew\n\n<!-- t: end -->\nb\n"
        );
        assert!(replaced("file", text, "u", "new\n").is_err());
    }
}
