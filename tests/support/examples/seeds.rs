//! Writes the seeds into a folder: `cargo run -p support --example seeds -- fuzz/corpus/run`.
#![forbid(unsafe_code)]

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).expect("usage: seeds FOLDER"));
    std::fs::create_dir_all(&folder)?;
    for (name, image) in support::seeds() {
        std::fs::write(folder.join(name), image)?;
    }
    Ok(())
}
