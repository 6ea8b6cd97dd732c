//! An evaluation that is killed, goes on, is spread over shards and merged gives the numbers of one run, to the byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Pictures in two sheets of 40 x 40.
const IMAGES: usize = 3100;

struct Case {
    folder: PathBuf,
}

impl Case {
    /// The sample image and pictures for it.
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spread").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("data")).expect("the folder of the tests can be written");
        let case = Self { folder };
        case.write("sample.snet", &plan::sample::writer().finish());
        for sheet in 0..2u32 {
            let file = fs::File::create(case.folder.join(format!("data/{sheet}.png"))).expect("a file is made");
            let mut encoder = png::Encoder::new(file, 160, 160);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            let pixel = |index: u32| ((index + sheet * 31).wrapping_mul(2_654_435_761) >> 24) as u8;
            let pixels: Vec<u8> = (0..160 * 160 * 3).map(pixel).collect();
            encoder
                .write_header()
                .and_then(|mut writer| writer.write_image_data(&pixels))
                .expect("a picture is written");
        }
        let labels: String = (0..IMAGES).map(|image| format!("{}\n", image * image % 7 % 2)).collect();
        case.write("data/labels.txt", labels.as_bytes());
        case
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.join(name), bytes).expect("the folder of the tests can be written");
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stitchnet"));
        command.current_dir(&self.folder).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// What a command that succeeds prints.
    fn evaluate(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["evaluate", "sample.snet", "--images", "data"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The one line that a command says when it fails.
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let error = error.lines().last().unwrap_or_default().to_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        error
    }
}

/// Pictures that a file says are done.
fn done(text: &str) -> usize {
    let line = text.lines().find_map(|line| line.strip_prefix("done "));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn shards_merge_to_what_one_run_counts() {
    let case = Case::new("shards");
    let printed = case.evaluate(&["-o", "whole.txt"]);
    let whole = case.text("whole.txt");
    assert_eq!(done(&whole), IMAGES);
    assert!(printed.contains("for each picture 7 blocks run, alone 8; with stitches 8, alone 9"), "{printed}");
    let files = ["1.txt", "2.txt", "3.txt"];
    for (number, file) in (1..).zip(files) {
        case.evaluate(&["-o", file, "--shard", &format!("{number}/3"), "--batch", "50"]);
    }
    let output = case.run(&[&["merge", "-o", "merged.txt"], &files[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(case.text("merged.txt"), whole);
    // The table of the merged shards is that of the one run.
    let table = |text: &str| text.lines().take(4).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(table(&String::from_utf8_lossy(&output.stdout)), table(&printed));
    // The other way to run them counts the same.
    case.evaluate(&["-o", "alone.txt", "--alone"]);
    assert_eq!(case.text("alone.txt"), whole);
    let compared = case.evaluate(&["--compare", "--count", "300"]);
    assert!(compared.contains("time of shared starts over each config alone: "), "{compared}");

    assert_eq!(case.refusal(&["merge", "1.txt", "3.txt"]), "error: merge: 2 of 3 shards; missing: 2");
    assert_eq!(case.refusal(&["merge", "1.txt", "2.txt", "1.txt"]), "error: 1.txt: shard 1 of 3 is in 1.txt already");
    assert!(case.refusal(&["merge", "missing.txt"]).starts_with("error: missing.txt"));
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    let case = Case::new("killed");
    case.evaluate(&["-o", "whole.txt"]);
    let arguments = ["evaluate", "sample.snet", "--images", "data", "-o", "killed.txt", "--batch", "1"];
    let read = || fs::read_to_string(case.folder.join("killed.txt")).unwrap_or_default();
    let mut seen = 0;
    for kill in 1..=4 {
        let mut child =
            case.command(&arguments).stdout(std::process::Stdio::null()).spawn().expect("the binary starts");
        let patience = Instant::now();
        // Somewhere behind what was done, at another place each time.
        while read().is_empty() || done(&read()) < seen + 97 * kill {
            assert!(patience.elapsed() < Duration::from_secs(60), "nothing is done");
            std::thread::sleep(Duration::from_micros(300));
        }
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        let now = done(&read());
        assert!(seen < now && now < IMAGES, "{now} of {IMAGES} were done: too fast to be killed");
        seen = now;
    }
    let printed = case.evaluate(&arguments[4..]);
    assert!(printed.starts_with(&format!("{seen} of {IMAGES} pictures were done\n")), "{printed}");
    let rest = format!("\n{} pictures in ", stitch::report::grouped((IMAGES - seen) as u64));
    assert!(printed.contains(&rest), "{printed}");
    assert_eq!(case.text("killed.txt"), case.text("whole.txt"));
    // What is complete is not run again.
    let printed = case.evaluate(&["-o", "killed.txt"]);
    assert!(printed.contains("\n0 pictures in "), "{printed}");
    assert_eq!(case.text("killed.txt"), case.text("whole.txt"));
}

#[test]
fn a_file_of_another_evaluation_is_not_gone_on_with() {
    let case = Case::new("other");
    case.evaluate(&["-o", "part.txt", "--shard", "1/2", "--count", "20"]);
    let go_on = |more: &[&str]| {
        let start = ["evaluate", "sample.snet", "--images", "data", "-o", "part.txt"];
        case.refusal(&[&start, more].concat())
    };
    assert!(go_on(&["--shard", "2/2", "--count", "20"]).contains("it is of shard 1, not of shard 2"));
    assert!(go_on(&["--shard", "1/3", "--count", "20"]).contains("it is one of 2 shards, not of 3"));
    assert!(go_on(&["--shard", "1/2", "--count", "21"]).contains("it is of 20 pictures, not of 21"));
    assert!(go_on(&["--shard", "2/2", "--count", "1"]).contains("1 pictures: none is left for shard 2 of 2"));
    let same = ["--shard", "1/2", "--count", "20"];
    let mut writer = plan::sample::writer();
    writer.configs[0].score += 1;
    case.write("sample.snet", &writer.finish());
    let error = go_on(&same);
    assert!(error.starts_with("error: part.txt: it counts the image ") && error.contains("remove it"), "{error}");
    case.write("sample.snet", &plan::sample::writer().finish());
    case.write("data/labels.txt", "1\n".repeat(IMAGES).as_bytes());
    assert!(go_on(&same).contains("its pictures have the checksum "));
    let cut = case.text("part.txt");
    case.write("part.txt", &cut.as_bytes()[..cut.len() / 2]);
    assert!(go_on(&same).contains("part.txt: "));
}
